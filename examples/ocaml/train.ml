(* SPDX-License-Identifier: Apache-2.0 *)

(* Three steps of training and an inference, compared with what examples/values/make.py computes. The argument is the
   path of values.txt. *)

open Bigarray

let outer, channels, inner = (4, 3, 6)
let rate = 0.01
let fail format = Printf.ksprintf failwith format

let tensor element =
  Array3.init float32 c_layout outer channels inner (fun n c i -> element ((((n * channels) + c) * inner) + i))

let batch k = tensor (fun i -> (float (((i * 37) + (k * 11)) mod 101) /. 8.) -. 5.)
let vector values = Array1.of_array float32 c_layout values
let to_list v = List.init (Array1.dim v) (Array1.get v)
let flat x = to_list (reshape_1 (genarray_of_array3 x) (Array3.dim1 x * Array3.dim2 x * Array3.dim3 x))

let descend values gradient =
  for c = 0 to channels - 1 do
    values.{c} <- values.{c} -. (rate *. gradient.{c})
  done

let agree name values expected =
  if List.compare_lengths values expected <> 0 then fail "%s: %d values" name (List.length values);
  List.iteri
    (fun i (value, wanted) ->
      (* A NaN is not within, either. *)
      if not (Float.abs (value -. wanted) <= 1e-4 *. Float.max 1. (Float.abs wanted)) then
        fail "%s[%d] is %.9g, not %.9g" name i value wanted)
    (List.combine values expected)

let read_values path =
  let file = open_in path in
  let rec lines read =
    match String.split_on_char ' ' (input_line file) with
    | name :: _ :: numbers -> lines ((name, List.map float_of_string numbers) :: read)
    | _ -> fail "%s is not as make.py writes it" path
    | exception End_of_file -> read
  in
  lines []

let () =
  Batchnorm.set_num_threads 1;
  let dy = tensor (fun i -> (float (((i * 53) + 7) mod 17) /. 4.) -. 2.) in
  let gamma, beta = (vector [| 1.; 2.; 0.5 |], vector [| 0.; -1.; 3. |]) in
  let running_mean, running_var = (vector [| 0.; 0.; 0. |], vector [| 1.; 1.; 1. |]) in
  let running = (running_mean, running_var) in
  let step k =
    let x = batch k in
    let y, saved = Batchnorm.forward_training ~gamma ~beta ~running x in
    let dx, dgamma, dbeta = Batchnorm.backward ~saved ~dy x in
    descend gamma dgamma;
    descend beta dbeta;
    [ ("y", flat y); ("dx", flat dx); ("dgamma", to_list dgamma); ("dbeta", to_list dbeta) ]
  in
  let last = List.init 3 step |> List.rev |> List.hd in
  let x = batch 0 in
  let inferred, saved = Batchnorm.forward_inference ~gamma ~beta ~running x in
  let results =
    last
    @ [
        ("gamma", to_list gamma); ("beta", to_list beta); ("running_mean", to_list running_mean);
        ("running_var", to_list running_var); ("inferred", flat inferred);
      ]
  in
  let expected = read_values Sys.argv.(1) in
  List.iter (fun (name, values) -> agree name values (List.assoc name expected)) results;

  (* Frozen statistics are constants: dx = gamma * invstd * dy. *)
  let frozen, _, _ = Batchnorm.backward ~saved ~dy x in
  let scale i = gamma.{i / inner mod channels} *. saved.invstd.{i / inner mod channels} in
  agree "frozen dx" (flat frozen) (List.mapi (fun i d -> scale i *. d) (flat dy));

  (* With momentum 1 and the biased variance, the running statistics are the moments of the batch. *)
  let _, replaced = Batchnorm.forward_training ~running ~eps:1. ~momentum:1. ~biased_running_var:true x in
  let count, mean, m2 = Batchnorm.moments x in
  let variance = List.map2 ( /. ) (to_list m2) (to_list count) in
  agree "momentum 1" (to_list running_mean @ to_list running_var) (to_list mean @ variance);
  agree "eps 1" (to_list replaced.invstd) (List.map (fun v -> 1. /. sqrt (v +. 1.)) variance);

  (* Backward uses gamma and beta as they were in the forward call. *)
  let _, saved = Batchnorm.forward_training ~gamma ~beta x in
  let before, _, _ = Batchnorm.backward ~saved ~dy x in
  Array1.fill gamma (-7.);
  Array1.fill beta 7.;
  let after, _, _ = Batchnorm.backward ~saved ~dy x in
  agree "dx of a gamma that was changed" (flat after) (flat before);
  (match Batchnorm.backward ~saved ~dy (Array3.sub_left x 0 2) with
  | exception Invalid_argument message when message = "x has other dimensions than in the forward call" -> ()
  | _ -> fail "no error for another x");

  (match Batchnorm.moments (Array3.create float32 c_layout outer 0 inner) with
  | exception Batchnorm.Error message when String.starts_with ~prefix:"bn_moments: channels is 0" message -> ()
  | _ -> fail "no error of the library for 0 channels");
  (match Batchnorm.forward_training ~gamma:(vector [| 1.; 2. |]) x with
  | exception Invalid_argument message when message = "gamma has 2 elements; expected 3" -> ()
  | _ -> fail "no error for a short gamma");

  (match Batchnorm.set_num_threads (1 lsl 32) with
  | exception Batchnorm.Error _ -> ()
  | () -> fail "no error for more threads than an int can count");

  Printf.printf "OCaml: %d values agree\n" (List.fold_left (fun sum (_, values) -> sum + List.length values) 0 results)
