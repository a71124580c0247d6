(* SPDX-License-Identifier: Apache-2.0 *)

(** libbatchnorm through ctypes: what batchnorm.h declares, with bigarrays, which C reads and writes where they are,
    optional arguments for options and an exception for statuses. A tensor is outer x channels x inner; its parameters
    have the type of its elements, float32 or float64, and one element for each channel. Statistics are float64. *)

open Bigarray
open Ctypes
open Foreign

(** Carries the library's own sentence. *)
exception Error of string

let () = Printexc.register_printer (function Error message -> Some message | _ -> None)

type 'elt tensor = (float, 'elt, c_layout) Array3.t
type 'elt channels = (float, 'elt, c_layout) Array1.t
type statistics = float64_elt channels

let library =
  let path = match Sys.getenv_opt "BATCHNORM_LIBRARY" with None | Some "" -> "libbatchnorm.so.2" | Some path -> path in
  let refuse reason = raise (Error ("libbatchnorm 2.0 or a later 2.x is needed, but " ^ reason)) in
  let library =
    try Dl.(dlopen ~filename:path ~flags:[ RTLD_NOW ])
    with Dl.DL_error message -> refuse ("cannot be loaded: " ^ message)
  in
  let version =
    try foreign ~from:library "bn_version" (void @-> returning int) ()
    with Dl.DL_error _ -> refuse (path ^ " has no bn_version")
  in
  let major, minor, patch = (version / 10000, version / 100 mod 100, version mod 100) in
  if major <> 2 then refuse (Printf.sprintf "%s is %d.%d.%d" path major minor patch);
  library

(** The state of a forward call that backward needs: the dimensions of its tensor, copies of gamma and beta as they
    were, the statistics that x was normalized with, and whether they were those of the batch. *)
type 'elt saved = {
  dims : int array;
  gamma : 'elt channels option;
  beta : 'elt channels option;
  mean : statistics;
  invstd : statistics;
  frozen : bool;
}

(* A size_t and an int32_t, as OCaml sees them. *)
let size = view ~read:Unsigned.Size_t.to_int ~write:Unsigned.Size_t.of_int size_t
let flag = view ~read:(( <> ) 0l) ~write:(fun set -> if set then 1l else 0l) int32_t

(* Fields without a name here stay as allocate_n makes them, 0 and NULL: dense strides, no weights, no descriptors. *)
module Shape = struct
  let t : [ `Shape ] structure typ = structure "bn_shape"
  let struct_size = field t "struct_size" size
  let outer = field t "outer" size
  let channels = field t "channels" size
  let inner = field t "inner" size
  let _ = List.map (fun name -> field t name size) [ "x_stride"; "y_stride"; "dx_stride" ]
  let _ = field t "weights" (ptr void)
  let () = seal t

  let of_tensor x =
    let shape = allocate_n t ~count:1 in
    shape |-> struct_size <-@ sizeof t;
    shape |-> outer <-@ Array3.dim1 x;
    shape |-> channels <-@ Array3.dim2 x;
    shape |-> inner <-@ Array3.dim3 x;
    shape
end

module Options = struct
  let t : [ `Options ] structure typ = structure "bn_options"
  let struct_size = field t "struct_size" size
  let eps = field t "eps" double
  let momentum = field t "momentum" double
  let biased_running_var = field t "biased_running_var" flag
  let frozen = field t "frozen" flag
  let _ = List.map (fun name -> field t name int32_t) [ "param_dtype"; "reserved" ]
  let _ = List.map (fun name -> field t name (ptr void)) [ "epilogue"; "running"; "source"; "groups" ]
  let () = seal t

  let make ?eps:(e = 1e-5) ?momentum:(m = 0.1) ?biased_running_var:(b = false) ?frozen:(f = false) () =
    let options = allocate_n t ~count:1 in
    options |-> struct_size <-@ sizeof t;
    options |-> eps <-@ e;
    options |-> momentum <-@ m;
    options |-> biased_running_var <-@ b;
    options |-> frozen <-@ f;
    options
end

module C = struct
  let foreign name = foreign ~from:library name
  let data = ptr void

  let options = ptr Options.t @-> returning int
  let eight rest = data @-> data @-> data @-> data @-> data @-> data @-> data @-> data @-> rest

  (* Eight arrays between the dtype and the options, and nine. *)
  let forward_training = foreign "bn_forward_training" (ptr Shape.t @-> int @-> eight options)
  let forward_inference = foreign "bn_forward_inference" (ptr Shape.t @-> int @-> eight options)
  let backward = foreign "bn_backward" (ptr Shape.t @-> int @-> eight (data @-> options))
  let moments =
    foreign "bn_moments" (ptr Shape.t @-> int @-> data @-> data @-> data @-> data @-> size_t @-> options)
  let set_num_threads = foreign "bn_set_num_threads" (int @-> returning int)
  let last_error = foreign "bn_last_error" (void @-> returning string)
end

let check status = if status <> 0 then raise (Error (C.last_error ()))

(* No other kind has elements that are float here. *)
let dtype : type elt. elt tensor -> int = fun x -> match Array3.kind x with Float32 -> 1 | Float64 -> 2

let elements x = to_voidp (bigarray_start array3 x)
let numbers v = to_voidp (bigarray_start array1 v)
let new_like x = Array3.create (Array3.kind x) c_layout (Array3.dim1 x) (Array3.dim2 x) (Array3.dim3 x)
let new_channels kind x = Array1.create kind c_layout (Array3.dim2 x)

(* C cannot know how long an array is. *)
let channels name x v =
  if Array1.dim v <> Array3.dim2 x then
    Printf.ksprintf invalid_arg "%s has %d elements; expected %d" name (Array1.dim v) (Array3.dim2 x);
  numbers v

let optional name x = function None -> null | Some v -> channels name x v

let dims x = Genarray.dims (genarray_of_array3 x)

let saved x gamma beta mean invstd frozen =
  let copy v =
    let own = Array1.create (Array1.kind v) c_layout (Array1.dim v) in
    Array1.blit v own;
    own
  in
  { dims = dims x; gamma = Option.map copy gamma; beta = Option.map copy beta; mean; invstd; frozen }

(** [y], and what {!backward} needs; the running mean and variance are updated in place. *)
let forward_training ?(gamma : 'elt channels option) ?(beta : 'elt channels option)
    ?(running : ('elt channels * 'elt channels) option) ?eps ?momentum ?biased_running_var (x : 'elt tensor) :
    'elt tensor * 'elt saved =
  let running_mean, running_var = (Option.map fst running, Option.map snd running) in
  let y, mean, invstd = (new_like x, new_channels float64 x, new_channels float64 x) in
  check
    (C.forward_training (Shape.of_tensor x) (dtype x) (elements x) (optional "gamma" x gamma) (optional "beta" x beta)
       (optional "running_mean" x running_mean) (optional "running_var" x running_var) (elements y) (numbers mean)
       (numbers invstd)
       (Options.make ?eps ?momentum ?biased_running_var ()));
  (y, saved x gamma beta mean invstd false)

(** Like {!forward_training}, but with the running statistics, which are constants to the gradient. *)
let forward_inference ?(gamma : 'elt channels option) ?(beta : 'elt channels option)
    ~running:((running_mean, running_var) : 'elt channels * 'elt channels) ?eps (x : 'elt tensor) :
    'elt tensor * 'elt saved =
  let y, mean, invstd = (new_like x, new_channels float64 x, new_channels float64 x) in
  check
    (C.forward_inference (Shape.of_tensor x) (dtype x) (elements x) (optional "gamma" x gamma) (optional "beta" x beta)
       (channels "running_mean" x running_mean) (channels "running_var" x running_var) (elements y) (numbers mean)
       (numbers invstd) (Options.make ?eps ()));
  (y, saved x gamma beta mean invstd true)

(** [dx, dgamma, dbeta]. [x] is that of the forward call that gave [saved], as it was then. *)
let backward ~(saved : 'elt saved) ~(dy : 'elt tensor) (x : 'elt tensor) : 'elt tensor * 'elt channels * 'elt channels =
  if dims x <> saved.dims then invalid_arg "x has other dimensions than in the forward call";
  if dims dy <> dims x then invalid_arg "dy has other dimensions than x";
  let dx, dgamma, dbeta = (new_like x, new_channels (Array3.kind x) x, new_channels (Array3.kind x) x) in
  check
    (C.backward (Shape.of_tensor x) (dtype x) (elements dy) (elements x) (optional "gamma" x saved.gamma)
       (optional "beta" x saved.beta) (channels "mean" x saved.mean) (channels "invstd" x saved.invstd) (elements dx)
       (numbers dgamma) (numbers dbeta)
       (Options.make ~frozen:saved.frozen ()));
  (dx, dgamma, dbeta)

(** The number of values, their mean and the sum of squared deviations from it. *)
let moments (x : 'elt tensor) : statistics * statistics * statistics =
  let count, mean, m2 = (new_channels float64 x, new_channels float64 x, new_channels float64 x) in
  check (C.moments (Shape.of_tensor x) (dtype x) (elements x) (numbers count) (numbers mean) (numbers m2)
           Unsigned.Size_t.zero (from_voidp Options.t null));
  (count, mean, m2)

(* A number that C's int cannot hold is as wrong as -1. *)
let set_num_threads threads = check (C.set_num_threads (if -1_000_000 < threads && threads < 1_000_000 then threads else -1))
