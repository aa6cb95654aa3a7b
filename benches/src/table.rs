//! Tables in Markdown, which can be read as they are.

use std::fmt;

pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    pub fn add(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(row.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| lines().map(|line| line[column].len()).max().unwrap_or(0))
            .collect();
        for (number, line) in lines().enumerate() {
            if number == 1 {
                for width in &widths {
                    write!(f, "|{:-<1$}", "", width + 2)?;
                }
                writeln!(f, "|")?;
            }
            for (cell, width) in line.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")?;
        }
        Ok(())
    }
}

/// With three digits: 950, 3.25k, 32.5k.
pub fn short(number: f64) -> String {
    // Small differences of counts may be below zero.
    let number = if number.abs() < 0.5 { 0.0 } else { number };
    match number.abs() {
        ..1_000.0 => format!("{number:.0}"),
        ..10_000.0 => format!("{:.2}k", number / 1_000.0),
        ..100_000.0 => format!("{:.1}k", number / 1_000.0),
        _ => format!("{:.0}k", number / 1_000.0),
    }
}

pub fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
