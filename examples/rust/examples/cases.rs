// SPDX-License-Identifier: Apache-2.0
//! The cases of `values/cases.txt`, which `values/cases.py` describes: every option, compared with its results.

use batchnorm::{
    backward, forward_inference, forward_training, Activation, Axes, Bf16, Element, Form, Gradients, Groups,
};
use batchnorm::{Masked, Options, PerGroup, Shape, Tensor, TensorMut, F16};
use std::{collections::HashMap, env, error, fs, process};

type Outcome<T> = Result<T, Box<dyn error::Error>>;

/// The words of each line by its name, where `expect` and `strides` have an array's name as well.
type Case<'a> = HashMap<String, Vec<&'a str>>;

/// An element of the file: a value, or the bits of one.
trait Number: Element<Parameter = Self::Of> + PartialEq {
    type Of: Number<Of = Self::Of>;
    /// The difference that is allowed, relative to 1 or the value; bits are to be the same.
    const TOLERANCE: f64;
    fn of(word: f64) -> Self;
    fn number(self) -> f64;
}

macro_rules! numbers {
    ($($number:ty, $of:ty, $tolerance:literal, $from:expr, $to:expr;)*) => {$(
        impl Number for $number {
            type Of = $of;
            const TOLERANCE: f64 = $tolerance;
            fn of(word: f64) -> Self {
                $from(word)
            }
            fn number(self) -> f64 {
                $to(self)
            }
        }
    )*};
}
numbers! {
    f32, f32, 2e-5, |word| word as f32, f64::from;
    f64, f64, 1e-11, |word| word, |value| value;
    F16, f32, 0.0, |word| F16(word as u16), |value: F16| f64::from(value.0);
    Bf16, f32, 0.0, |word| Bf16(word as u16), |value: Bf16| f64::from(value.0);
}

fn cases(text: &str) -> Vec<(String, Case<'_>)> {
    let mut cases = Vec::new();
    for line in text.lines() {
        let mut words: Vec<&str> = line.split(' ').collect();
        let taken = if ["expect", "strides"].contains(&words[0]) { 2 } else { 1 };
        let name = words.drain(..taken).collect::<Vec<_>>().join(" ");
        if name == "case" {
            cases.push((words.join(" "), Case::new()));
        } else if let Some((_, case)) = cases.last_mut() {
            case.insert(name, words);
        }
    }
    cases
}

fn array<T: Number>(case: &Case<'_>, name: &str) -> Option<Vec<T>> {
    Some(case.get(name)?.iter().map(|word| T::of(word.parse().unwrap_or(f64::NAN))).collect())
}

fn list<T: std::str::FromStr>(case: &Case<'_>, name: &str) -> Option<Vec<T>> {
    case.get(name)?.iter().map(|word| word.parse().ok()).collect()
}

fn number(case: &Case<'_>, name: &str, otherwise: f64) -> f64 {
    list(case, name).map_or(otherwise, |numbers| numbers[0])
}

fn compare<T: Number>(case: &Case<'_>, name: &str, found: &[T]) -> Outcome<()> {
    // One that is not expected was not asked for.
    let wanted: Vec<f64> = match list(case, &format!("expect {name}")) {
        Some(wanted) => wanted,
        None => return Ok(()),
    };
    if found.len() != wanted.len() {
        return Err(format!("{name} has {} values, expected {}", found.len(), wanted.len()).into());
    }
    for (i, (value, wanted)) in found.iter().map(|value| value.number()).zip(wanted).enumerate() {
        let near = (value - wanted).abs() <= T::TOLERANCE * wanted.abs().max(1.0); // false for NaN, too
        if !near {
            return Err(format!("{name}[{i}] is {value}, expected {wanted}").into());
        }
    }
    Ok(())
}

fn activation(case: &Case<'_>) -> Activation {
    match case.get("activation").map_or("", |words| words[0]) {
        "relu" => Activation::Relu,
        "leaky_relu" => Activation::LeakyRelu { slope: number(case, "slope", 0.01) },
        "clip" if case.contains_key("high") => {
            Activation::Clip { low: number(case, "low", 0.0), high: number(case, "high", 6.0) }
        }
        "clip" => Activation::RELU6,
        "hard_swish" => Activation::HardSwish,
        "silu" => Activation::Silu,
        _ => Activation::Identity,
    }
}

fn groups<'a>(case: &Case<'_>, index: &'a Option<Vec<i32>>) -> Option<Groups<'a>> {
    let mut groups = Groups { index: index.as_deref(), ..Groups::new(list(case, "groups")?[0]) };
    if let Some(kinds) = case.get("per_group") {
        let has = |kind| kinds.contains(&kind);
        groups.per_group =
            PerGroup { statistics: has("statistics"), running: has("running"), parameters: has("parameters") };
    }
    Some(groups)
}

fn check<T: Number>(case: &Case<'_>) -> Outcome<()> {
    let sizes: Vec<usize> = list(case, "sizes").ok_or("no sizes")?;
    let x: Vec<T> = array(case, "x").ok_or("no x")?;
    let of_x = list::<isize>(case, "strides x");
    let strides = |name: &str| list(case, &format!("strides {name}")).or_else(|| of_x.clone());
    let (of_y, of_z, of_dy, of_dx) = (strides("y"), strides("residual"), strides("dy"), strides("dx"));
    let form: Form = match of_x {
        Some(_) => Axes { sizes: &sizes, channels: list(case, "axis").ok_or("no axis")?[0] }.into(),
        None => Shape { outer: sizes[0], channels: sizes[1], inner: sizes[2..].iter().product() }.into(),
    };
    let (mut gamma, mut beta) = (array::<T::Of>(case, "gamma"), array::<T::Of>(case, "beta"));
    let (mut running_mean, mut running_var) = (array::<T::Of>(case, "running_mean"), array(case, "running_var"));
    let (mut residual, weights) = (array::<T>(case, "residual"), array::<T::Of>(case, "weights"));
    let mut index = list(case, "index");
    let room = |name: &str| {
        let length = case.get(&format!("expect {name}")).map_or(x.len(), |words| words.len());
        vec![T::of(7.0); length]
    };
    let (mut y, mut dx, mut dz) = (room("y"), room("dx"), room("dz"));
    let input = Tensor { data: &x, strides: of_x.as_deref() };
    let output = TensorMut { data: &mut y, strides: of_y.as_deref() };
    let options = Options {
        eps: number(case, "eps", 1e-5),
        momentum: number(case, "momentum", 0.1),
        biased_running_var: case.contains_key("biased"),
        activation: activation(case),
        residual: residual.as_deref().map(|data| Tensor { data, strides: of_z.as_deref() }),
        save_mask: case.contains_key("mask"),
        groups: groups(case, &index),
        weights: weights.as_deref(),
        masked: match case.get("masked").map_or("", |words| words[0]) {
            "zero" => Masked::Zero,
            "keep" => Masked::Keep,
            _ => Masked::Normalize,
        },
    };
    let (of_gamma, of_beta) = (gamma.as_deref(), beta.as_deref());
    let saved = if case["call"][0] == "training" {
        let running = running_mean.as_deref_mut().zip(running_var.as_deref_mut());
        forward_training(form, input, of_gamma, of_beta, running, output, &options)
    } else {
        let running = running_mean.as_deref().zip(running_var.as_deref()).ok_or("no running statistics")?;
        forward_inference(form, input, of_gamma, of_beta, running, output, &options)
    };
    if let Some(word) = case.get("refused") {
        return match saved {
            Err(refused) if refused.to_string().contains(word[0]) => Ok(()),
            other => Err(format!("expected an error that has {word:?}, not {:?}", other.err()).into()),
        };
    }
    let saved = saved?;
    let has_mask = saved.mask().is_some();
    for row in [&mut gamma, &mut beta].into_iter().flatten() {
        row.fill(T::Of::of(-77.0));
    }
    index.iter_mut().for_each(|index: &mut Vec<i32>| index.fill(-77));
    residual.iter_mut().filter(|_| has_mask).for_each(|z| z.fill(T::of(77.0)));

    let dy: Vec<T> = array(case, "dy").ok_or("no dy")?;
    let of_dy = of_dy.as_deref();
    let again = residual.as_deref().filter(|_| !has_mask).map(|data| Tensor { data, strides: of_z.as_deref() });
    let (mut dgamma, mut dbeta) =
        (vec![T::Of::of(0.0); words(case, "dgamma")], vec![T::Of::of(0.0); words(case, "dbeta")]);
    let gradients = Gradients {
        dx: Some(TensorMut { data: &mut dx, strides: of_dx.as_deref() }),
        dgamma: Some(&mut dgamma),
        dbeta: Some(&mut dbeta),
        dz: residual.as_ref().map(|_| TensorMut { data: &mut dz, strides: of_dy }),
    };
    backward(Tensor { data: &dy, strides: of_dy }, input, again, &saved, gradients)?;

    let mask: Vec<f64> = saved.mask().unwrap_or_default().iter().map(|&byte| byte.into()).collect();
    compare(case, "y", &y)?;
    compare(case, "dx", &dx)?;
    compare(case, "dz", &dz)?;
    compare(case, "dgamma", &dgamma)?;
    compare(case, "dbeta", &dbeta)?;
    compare(case, "running_mean", &running_mean.unwrap_or_default())?;
    compare(case, "running_var", &running_var.unwrap_or_default())?;
    compare(case, "mean", saved.mean())?;
    compare(case, "invstd", saved.invstd())?;
    compare(case, "mask", &mask)
}

fn words(case: &Case<'_>, name: &str) -> usize {
    case.get(&format!("expect {name}")).map_or(0, |words| words.len())
}

fn run(path: &str) -> Outcome<usize> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let cases = cases(&text);
    for (name, case) in &cases {
        match case["dtype"][0] {
            "float32" => check::<f32>(case),
            "float64" => check::<f64>(case),
            "float16" => check::<F16>(case),
            _ => check::<Bf16>(case),
        }
        .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(cases.len())
}

fn main() {
    let path = env::args().nth(1).unwrap_or_else(|| "../values/cases.txt".into());
    match run(&path) {
        Ok(agree) => println!("rust: {agree} cases agree"),
        Err(error) => {
            eprintln!("rust: {error}");
            process::exit(1);
        }
    }
}
