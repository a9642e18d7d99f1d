//! Medians, of rounds in which the floor and evd take turns.

/// The value below which `part` of the others are.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// What the floor and evd took, round by round.
#[derive(Debug, Default)]
pub struct Rounds {
    floor: Vec<f64>,
    ours: Vec<f64>,
}

impl Rounds {
    /// Adds what one round took.
    pub fn add(&mut self, floor: f64, ours: f64) {
        self.floor.push(floor);
        self.ours.push(ours);
    }

    /// The floor's median, ours, and the median of the rounds' ratios: what disturbs the machine for a while disturbs both sides of a round.
    pub fn result(&self) -> (f64, f64, f64) {
        let ratios: Vec<f64> = self.floor.iter().zip(&self.ours).map(|(f, o)| o / f).collect();
        (median(&self.floor), median(&self.ours), median(&ratios))
    }

    /// Whether the median ratio is known well: then, or after `most` rounds, there need be no more. Noise is what decides here and never the ratio itself.
    pub fn enough(&self, least: usize, most: usize) -> bool {
        let (low, high) = self.spread();
        let (.., ratio) = self.result();
        // About the standard error of a median.
        let error = 0.93 * (high - low) / (self.floor.len() as f64).sqrt();
        self.floor.len() >= most || (self.floor.len() >= least && error < 0.01 * ratio)
    }

    /// The smaller and the larger quartile of the ratios: how far they can be trusted.
    pub fn spread(&self) -> (f64, f64) {
        let ratios: Vec<f64> = self.floor.iter().zip(&self.ours).map(|(f, o)| o / f).collect();
        (percentile(&ratios, 0.25), percentile(&ratios, 0.75))
    }
}

/// Latencies of many events, round by round.
#[derive(Debug, Default)]
pub struct Samples {
    /// In microseconds.
    pub medians: Rounds,
    floor: Vec<f64>,
    ours: Vec<f64>,
}

impl Samples {
    /// Adds a round's samples, in nanoseconds, but for the first `warm_up` of each side.
    pub fn add(&mut self, floor: &[u64], ours: &[u64], warm_up: usize) {
        let us = |all: &[u64]| all.iter().skip(warm_up).map(|ns| *ns as f64 / 1000.0).collect::<Vec<f64>>();
        let (floor, ours) = (us(floor), us(ours));
        self.medians.add(median(&floor), median(&ours));
        self.floor.extend(floor);
        self.ours.extend(ours);
    }

    /// A percentile of the samples of all rounds together, the floor's and ours.
    pub fn percentile(&self, part: f64) -> (f64, f64) {
        (percentile(&self.floor, part), percentile(&self.ours, part))
    }
}
