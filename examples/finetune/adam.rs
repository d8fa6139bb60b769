//! The optimiser and the loss, in plain loops on the host.

/// One matrix of parameters with Adam's two moments.
pub struct Adam {
    values: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: i32,
}

impl Adam {
    /// torch's defaults.
    const BETA: [f32; 2] = [0.9, 0.999];
    const EPSILON: f32 = 1e-8;

    pub fn new(values: Vec<f32>) -> Adam {
        let zeros = vec![0.0; values.len()];
        Adam { values, mean: zeros.clone(), square: zeros, steps: 0 }
    }

    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The parameters after a step along `gradient`.
    pub fn step(&mut self, gradient: &[f32], lr: f32) -> &[f32] {
        self.steps += 1;
        let [first, second] = Adam::BETA;
        let [of_mean, of_square] = Adam::BETA.map(|beta| 1.0 - beta.powi(self.steps));
        for (at, gradient) in gradient.iter().enumerate() {
            let (mean, square) = (&mut self.mean[at], &mut self.square[at]);
            *mean = first * *mean + (1.0 - first) * gradient;
            *square = second * *square + (1.0 - second) * gradient * gradient;
            self.values[at] -=
                lr * (*mean / of_mean) / ((*square / of_square).sqrt() + Adam::EPSILON);
        }
        &self.values
    }
}

/// Mean softmax cross-entropy of a batch, and its gradient by the logits.
pub fn cross_entropy(logits: &[f32], labels: &[usize]) -> (f32, Vec<f32>) {
    let classes = logits.len() / labels.len();
    let (mut loss, mut gradient) = (0.0, Vec::with_capacity(logits.len()));
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let powers: Vec<f32> = row.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f32 = powers.iter().sum();
        loss += sum.ln() + largest - row[label];
        gradient.extend(powers.iter().enumerate().map(|(class, power)| {
            let wanted = if class == label { 1.0 } else { 0.0 };
            (power / sum - wanted) / labels.len() as f32
        }));
    }
    (loss / labels.len() as f32, gradient)
}

/// The share of rows whose largest logit is the label's.
pub fn accuracy(logits: &[f32], labels: &[usize]) -> f64 {
    let classes = logits.len() / labels.len();
    let best =
        |row: &[f32]| (1..classes).fold(0, |best, at| if row[at] > row[best] { at } else { best });
    let right =
        logits.chunks_exact(classes).zip(labels).filter(|(row, label)| best(row) == **label);
    right.count() as f64 / labels.len() as f64
}
