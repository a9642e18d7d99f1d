//! The lines that the figures print.

use super::{Rounds, Samples};

/// One line: a figure, or a part of one.
#[derive(Debug)]
pub struct Row<'a> {
    /// What was measured.
    pub name: &'a str,
    /// The unit of `floor` and `ours`.
    pub unit: &'a str,
    pub floor: Option<f64>,
    pub ours: f64,
    /// What is compared with the goal.
    pub value: f64,
    /// At most this; `None`: shown and not judged.
    pub goal: Option<f64>,
    pub note: String,
}

/// All lines so far.
#[derive(Debug)]
pub struct Table {
    /// What the middle columns compare.
    other: &'static str,
    short: Vec<String>,
    judged: usize,
    /// The figure that is being measured.
    figure: String,
}

impl Table {
    /// A table that compares ours with what is called `other`.
    pub fn against(other: &'static str) -> Table {
        Table { other, short: Vec::new(), judged: 0, figure: String::new() }
    }

    /// A headline.
    pub fn chapter(&mut self, name: &str, about: &str) {
        if self.figure.is_empty() {
            println!(
                "{:<54} {:>12} {:>12} {:>8} {:>6}  result",
                "figure", self.other, "ours", "ratio", "goal"
            );
        }
        self.figure = name.to_owned();
        println!("{name}: {about}");
    }

    /// Prints a line.
    pub fn row(&mut self, row: Row<'_>) {
        let Row { name, unit, floor, ours, value, goal, note } = row;
        let number = |v: f64| {
            if v >= 1000.0 || v == v.trunc() { format!("{v:.0} {unit}") } else { format!("{v:.2} {unit}") }
        };
        let result = match goal {
            Some(goal) if value <= goal => "ok",
            Some(_) => "short",
            None => "",
        };
        let ratio = if floor.is_some() { format!("{value:.2}") } else { String::new() };
        println!(
            "  {name:<52} {:>12} {:>12} {ratio:>8} {:>6}  {result:<5} {note}",
            floor.map_or_else(String::new, number),
            number(ours),
            goal.map_or_else(String::new, |g| g.to_string()),
        );
        self.judged += usize::from(goal.is_some());
        if result == "short" {
            self.short.push(format!("{}: {name}", self.figure));
        }
    }

    /// Prints the line of a ratio; the note is where the middle half of the rounds' ratios lies.
    pub fn ratio(&mut self, name: &str, unit: &str, rounds: &Rounds, goal: Option<f64>) {
        let (floor, ours, value) = rounds.result();
        let (low, high) = rounds.spread();
        let note = format!("{low:.2}..{high:.2}");
        self.row(Row { name, unit, floor: Some(floor), ours, value, goal, note });
    }

    /// Prints the lines of a latency: its median, which is judged, and its 99th percentile, which is not.
    pub fn latency(&mut self, name: &str, samples: &Samples, goal: f64) {
        self.ratio(&format!("{name}, p50"), "us", &samples.medians, Some(goal));
        let (floor, ours) = samples.percentile(0.99);
        let name = &format!("{name}, p99");
        self.row(Row {
            name,
            unit: "us",
            floor: Some(floor),
            ours,
            value: ours / floor,
            goal: None,
            note: String::new(),
        });
    }

    /// How many lines fell short.
    pub fn shortfalls(&self) -> usize {
        self.short.len()
    }

    /// Prints the line of a number that has no floor.
    pub fn number(&mut self, name: &str, unit: &str, ours: f64, goal: Option<f64>) {
        self.row(Row { name, unit, floor: None, ours, value: ours, goal, note: String::new() });
    }

    /// The last line.
    pub fn end(&self) {
        match self.short.len() {
            0 => println!("{} of {} reached their goals", self.judged, self.judged),
            n => println!("{n} of {} fall short: {}", self.judged, self.short.join("; ")),
        }
    }
}
