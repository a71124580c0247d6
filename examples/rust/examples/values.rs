// SPDX-License-Identifier: Apache-2.0
//! Three steps of training and one inference, on the data that `values/make.py` describes, compared with its results.

use batchnorm::{backward, forward_inference, forward_training, moments};
use batchnorm::{Activation, Axes, Error, Gradients, Options, Shape, Tensor};
use std::{collections::HashMap, env, error, fs, process};

const SHAPE: Shape = Shape { outer: 4, channels: 3, inner: 6 };
const SIZE: usize = 4 * 3 * 6;

fn batch(k: usize) -> Vec<f32> {
    (0..SIZE).map(|i| ((i * 37 + k * 11) % 101) as f32 / 8.0 - 5.0).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-4 * b.abs().max(1.0) // false for NaN, too
}

fn only_dx(dx: &mut [f32]) -> Gradients<'_, f32> {
    Gradients { dx: Some(dx.into()), ..Gradients::default() }
}

/// Descends by the gradients, in place.
fn descend(parameters: &mut [f32], gradients: &[f32]) {
    for (parameter, gradient) in parameters.iter_mut().zip(gradients) {
        *parameter -= 0.01 * gradient;
    }
}

/// Missing from values.txt: the options, and the moments. At momentum 1 the running statistics are the batch's.
fn check_options() -> Result<(), Box<dyn error::Error>> {
    let (x, dy, gamma) = (batch(1), batch(2), [1.5, 2.0, 0.5]);
    let (mut y, mut dx) = ([0.0; SIZE], [0.0; SIZE]);
    let (mut running_mean, mut running_var) = ([0.0; 3], [1.0; 3]);
    let (mut count, mut batch_mean, mut m2) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    let options = Options { eps: 0.5, momentum: 1.0, biased_running_var: true, ..Options::default() };

    let running = Some((&mut running_mean[..], &mut running_var[..]));
    let trained = forward_training(SHAPE, &x, None, None, running, &mut y, &options)?;
    moments(SHAPE, &x, &mut count, &mut batch_mean, &mut m2)?;
    let running = (&running_mean[..], &running_var[..]);
    let inferred = forward_inference(SHAPE, &x, Some(&gamma), None, running, &mut y, &options)?;
    backward(&dy, &x, None, &inferred, only_dx(&mut dx))?;
    let invstd = trained.invstd();

    let rows = (0..3).all(|c| {
        let var = m2[c] / count[c];
        close(running_mean[c].into(), batch_mean[c])
            && close(running_var[c].into(), var)
            && close(invstd[c], 1.0 / (var + options.eps).sqrt())
    });
    let gradients = (0..SIZE).all(|i| {
        let c = i / SHAPE.inner % SHAPE.channels;
        close(dx[i].into(), f64::from(gamma[c] * dy[i]) * invstd[c])
    });
    if rows && gradients {
        Ok(())
    } else {
        Err("options or moments differ".into())
    }
}

/// The values that `backward` has from the forward call: gamma and beta as they were, and their number.
fn check_saved() -> Result<(), Box<dyn error::Error>> {
    let (x, dy, mut gamma, mut beta) = (batch(1), batch(2), [1.5, 2.0, 0.5], [1.0, 2.0, 3.0]);
    let (mut y, mut before, mut after) = ([0.0; SIZE], [0.0; SIZE], [0.0; SIZE]);
    let options = Options::default();
    let saved = forward_training(SHAPE, &x, Some(&gamma), Some(&beta), None, &mut y, &options)?;
    backward(&dy, &x, None, &saved, only_dx(&mut before))?;
    gamma.fill(-7.0);
    beta.fill(7.0);
    backward(&dy, &x, None, &saved, only_dx(&mut after))?;
    let other = forward_training(SHAPE, &x, Some(&gamma), Some(&beta), None, &mut y, &options)?;
    if before != after || saved == other {
        return Err("saved has changed".into());
    }
    match backward(&dy[1..], &x, None, &saved, only_dx(&mut after)) {
        Err(Error::Length { argument: "dy", actual: 71, expected: SIZE }) => Ok(()),
        other => Err(format!("dy of another shape: {other:?}").into()),
    }
}

/// A call that the library has to refuse, in its words; and one that it must not see.
fn check_errors() -> Result<(), Box<dyn error::Error>> {
    let nothing = Shape { channels: 0, ..SHAPE };
    match moments::<f32>(nothing, &[], &mut [], &mut [], &mut []) {
        Err(Error::Library { message, .. }) if message.contains("channels") => {}
        other => return Err(format!("0 channels: {other:?}").into()),
    }
    let (x, mut y, mut dx) = (batch(0), [0.0; SIZE], [0.0; SIZE]);
    let options = Options { activation: Activation::Silu, residual: Some(x[..].into()), ..Options::default() };
    let saved = forward_training(SHAPE, &x, None, None, None, &mut y, &options)?;
    let found = backward(&x, &x, None, &saved, only_dx(&mut dx));
    if found != Err(Error::Residual) {
        return Err(format!("without the residual: {found:?}").into());
    }
    backward(&x, &x, Some(x[..].into()), &saved, only_dx(&mut dx))?;
    let strided = Tensor { data: &x, strides: Some(&[18, 1, 3]) };
    let found = forward_training(SHAPE, strided, None, None, None, &mut y, &Options::default());
    if found != Err(Error::Strides { argument: "x" }) {
        return Err(format!("strides without axes: {found:?}").into());
    }
    let short = Tensor { data: &x[1..], ..strided };
    let axes = Axes { sizes: &[4, 3, 6], channels: 1 };
    let found = forward_training(axes, short, None, None, None, &mut y, &Options::default());
    if found != Err(Error::Length { argument: "x", actual: 71, expected: SIZE }) {
        return Err(format!("a short slice with strides: {found:?}").into());
    }
    let (mut count, mut mean, mut m2) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    match moments(SHAPE, &batch(0)[1..], &mut count, &mut mean, &mut m2) {
        Err(Error::Length { argument: "x", actual: 71, expected: SIZE }) => Ok(()),
        other => Err(format!("a short slice: {other:?}").into()),
    }
}

fn run(path: &str) -> Result<usize, Box<dyn error::Error>> {
    let options = Options::default();
    let dy: Vec<f32> = (0..SIZE).map(|i| ((i * 53 + 7) % 17) as f32 / 4.0 - 2.0).collect();
    let (mut gamma, mut beta) = ([1.0, 2.0, 0.5], [0.0, -1.0, 3.0]);
    let (mut running_mean, mut running_var) = ([0.0; 3], [1.0; 3]);
    let (mut y, mut dx, mut dgamma, mut dbeta) = ([0.0; SIZE], [0.0; SIZE], [0.0; 3], [0.0; 3]);

    for k in 0..3 {
        let x = batch(k);
        let running = Some((&mut running_mean[..], &mut running_var[..]));
        let saved = forward_training(SHAPE, &x, Some(&gamma), Some(&beta), running, &mut y, &options)?;

        let of_x = only_dx(&mut dx);
        let gradients = Gradients { dgamma: Some(&mut dgamma), dbeta: Some(&mut dbeta), ..of_x };
        backward(&dy, &x, None, &saved, gradients)?;
        descend(&mut gamma, &dgamma);
        descend(&mut beta, &dbeta);
    }
    let (x, running) = (batch(0), (&running_mean[..], &running_var[..]));
    let mut inferred = [0.0; SIZE];
    forward_inference(SHAPE, &x, Some(&gamma), Some(&beta), running, &mut inferred, &options)?;

    let results: HashMap<&str, &[f32]> = HashMap::from([
        ("y", &y[..]),
        ("dx", &dx),
        ("dgamma", &dgamma),
        ("dbeta", &dbeta),
        ("gamma", &gamma),
        ("beta", &beta),
        ("running_mean", &running_mean),
        ("running_var", &running_var),
        ("inferred", &inferred),
    ]);
    compare(&results, &fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?)
}

/// A line of values.txt is a name, a number of values, and the values. Returns how many were compared.
fn compare(results: &HashMap<&str, &[f32]>, text: &str) -> Result<usize, Box<dyn error::Error>> {
    let mut compared = 0;
    for line in text.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let wanted = words.skip(1).map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let result = results.get(name).ok_or_else(|| format!("{name} was not computed"))?;
        if result.len() != wanted.len() {
            return Err(format!("{name} has {} values, expected {}", result.len(), wanted.len()).into());
        }
        for (i, (&value, &wanted)) in result.iter().zip(&wanted).enumerate() {
            if !close(value.into(), wanted) {
                return Err(format!("{name}[{i}] is {value}, expected {wanted}").into());
            }
        }
        compared += wanted.len();
    }
    if compared == results.values().map(|v| v.len()).sum() {
        Ok(compared)
    } else {
        Err("values are missing".into())
    }
}

fn main() {
    let path = env::args().nth(1).unwrap_or_else(|| "../values/values.txt".into());
    let compared = run(&path).and_then(|compared| {
        check_options()?;
        check_saved()?;
        check_errors()?;
        batchnorm::set_num_threads(0)?;
        Ok(compared)
    });
    match compared {
        Ok(compared) => println!("rust: {compared} values agree"),
        Err(error) => {
            eprintln!("rust: {error}");
            process::exit(1);
        }
    }
}
