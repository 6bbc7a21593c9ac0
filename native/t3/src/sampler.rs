//! Draws a token from logits.
//!
//! Filters work on float32 scores, in the order for which the model was tuned. Probabilities are float64, from the
//! `libm` crate. The token is where one [`uniform`] number falls among the probabilities, summed by rising token id.
//! So the same seed, step, attempt and logits give the same token everywhere.

use crate::error::{Error, Result};
use crate::philox::uniform;

/// How a token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy: it picks the likeliest token after the penalty.
    pub temperature: f64,
    /// A value above 1 makes tokens that were already spoken less likely.
    pub repetition_penalty: f64,
    /// Keeps the likeliest tokens that together have this probability; 1 keeps all.
    pub top_p: f64,
    /// Keeps tokens at least this likely, relative to the likeliest; 0 keeps all.
    pub min_p: f64,
    /// Keeps this number of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Penalty, temperature, min_p, top_p (Llama), else temperature, top_k, top_p, penalty (GPT-2).
    pub penalty_first: bool,
}

/// Which random number is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The seed of the speech.
    pub seed: u64,
    /// How many tokens of the speech came before.
    pub step: u32,
    /// How often this speech was started before.
    pub attempt: u32,
}

impl Sampling {
    fn check(&self, tokens: usize, seen: &[u32]) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 1e6),
            ("repetition_penalty", self.repetition_penalty, 1e-6, 1e6),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(Error::invalid(format!(
                    "{name} must be within {low}..{high}, not {value}"
                )));
            }
        }
        match seen.iter().find(|id| **id as usize >= tokens) {
            Some(id) => Err(Error::invalid(format!(
                "token {id} is not among the {tokens}"
            ))),
            None => Ok(()),
        }
    }

    /// Draws a token.
    ///
    /// # Errors
    /// [`NotFinite`](crate::error::Code::NotFinite) if the greatest logit or score is not finite, or any logit is
    /// NaN.
    pub fn draw(&self, logits: &[f32], seen: &[u32], draw: Draw) -> Result<u32> {
        let scores = self.scores(logits, seen)?;
        let greatest = highest(&scores)?;
        if self.temperature == 0.0 {
            return scores
                .iter()
                .position(|score| *score == greatest)
                .map(|token| token as u32)
                .ok_or_else(|| Error::internal("no token is the likeliest"));
        }
        let weights = || {
            let kept = scores
                .iter()
                .enumerate()
                .filter(|(_, score)| **score > f32::NEG_INFINITY);
            kept.map(|(token, score)| (token as u32, weight(*score, greatest)))
        };
        let total: f64 = weights().fold(0.0, |sum, (_, weight)| sum + weight);
        let target = uniform(draw.seed, draw.step, draw.attempt) * total;
        let mut sum = 0.0;
        let mut last = 0;
        for (token, weight) in weights() {
            sum += weight;
            if sum > target {
                return Ok(token);
            }
            if weight > 0.0 {
                last = token;
            }
        }
        // rounding took the target to the very end
        Ok(last)
    }

    /// The scores after the filters; excluded tokens have minus infinity. With greedy, the scores after the penalty.
    pub fn scores(&self, logits: &[f32], seen: &[u32]) -> Result<Vec<f32>> {
        self.check(logits.len(), seen)?;
        highest(logits)?;
        let mut scores = logits.to_vec();
        if self.temperature == 0.0 {
            self.penalise(&mut scores, seen);
            return Ok(scores);
        }
        if self.penalty_first {
            self.penalise(&mut scores, seen);
        }
        let temperature = self.temperature as f32;
        scores.iter_mut().for_each(|score| *score /= temperature);
        if self.penalty_first {
            at_least(&mut scores, self.min_p)?;
        } else {
            best(&mut scores, self.top_k);
        }
        nucleus(&mut scores, self.top_p)?;
        if !self.penalty_first {
            self.penalise(&mut scores, seen);
        }
        highest(&scores)?;
        Ok(scores)
    }

    fn penalise(&self, scores: &mut [f32], seen: &[u32]) {
        let penalty = self.repetition_penalty as f32;
        if penalty == 1.0 {
            return;
        }
        // read before any is written, so that a repeated id is penalised once
        let marked: Vec<f32> = seen.iter().map(|id| scores[*id as usize]).collect();
        for (id, score) in seen.iter().zip(marked) {
            scores[*id as usize] = if score < 0.0 {
                score * penalty
            } else {
                score / penalty
            };
        }
    }
}

/// The greatest score, which must be finite; none may be NaN.
fn highest(scores: &[f32]) -> Result<f32> {
    let mut greatest = f32::NEG_INFINITY;
    let mut nan = false;
    for score in scores {
        nan |= score.is_nan();
        greatest = if *score > greatest { *score } else { greatest };
    }
    match greatest.is_finite() && !nan {
        true => Ok(greatest),
        false => Err(Error::not_finite("the model's output is not finite")),
    }
}

fn weight(score: f32, greatest: f32) -> f64 {
    libm::exp(f64::from(score) - f64::from(greatest))
}

fn at_least(scores: &mut [f32], min_p: f64) -> Result<()> {
    if min_p > 0.0 {
        let floor = highest(scores)? + libm::log(min_p) as f32;
        scores
            .iter_mut()
            .filter(|score| **score < floor)
            .for_each(|score| *score = f32::NEG_INFINITY);
    }
    Ok(())
}

/// Keeps the `top_k` greatest scores, and those equal to the least of them.
fn best(scores: &mut [f32], top_k: usize) {
    if top_k == 0 || top_k >= scores.len() {
        return;
    }
    let mut falling = scores.to_vec();
    let (_, least, _) = falling.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a));
    let least = *least;
    scores
        .iter_mut()
        .filter(|score| **score < least)
        .for_each(|score| *score = f32::NEG_INFINITY);
}

/// Keeps the greatest scores that together have the probability `top_p`. Of equal ones, lower ids come first.
fn nucleus(scores: &mut [f32], top_p: f64) -> Result<()> {
    if top_p >= 1.0 {
        return Ok(());
    }
    let greatest = highest(scores)?;
    let mut rising: Vec<(f32, usize)> = scores
        .iter()
        .enumerate()
        .filter(|(_, score)| **score > f32::NEG_INFINITY)
        .map(|(token, score)| (*score, token))
        .collect();
    // equal as numbers, -0 and 0 are equal here as well
    rising.sort_unstable_by(|a, b| {
        a.0.partial_cmp(&b.0)
            .unwrap_or(std::cmp::Ordering::Equal)
            .then(a.1.cmp(&b.1))
    });
    let total: f64 = rising
        .iter()
        .fold(0.0, |sum, (score, _)| sum + weight(*score, greatest));
    let spare = (1.0 - top_p) * total;
    let mut sum = 0.0;
    let last = rising.len().saturating_sub(1);
    for (score, token) in &rising[..last] {
        sum += weight(*score, greatest);
        if sum > spare {
            break;
        }
        scores[*token] = f32::NEG_INFINITY;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::testing::Numbers;

    const PLAIN: Sampling = Sampling {
        temperature: 1.0,
        repetition_penalty: 1.0,
        top_p: 1.0,
        min_p: 0.0,
        top_k: 0,
        penalty_first: true,
    };

    fn kept(scores: &[f32]) -> Vec<usize> {
        (0..scores.len())
            .filter(|i| scores[*i] > f32::NEG_INFINITY)
            .collect()
    }

    fn draw(seed: u64, step: u32) -> Draw {
        Draw {
            seed,
            step,
            attempt: 0,
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits = [0.5_f32, 0.2, 0.2, 0.06, 0.04].map(f32::ln);
        let scores = |sampling: Sampling| kept(&sampling.scores(&logits, &[]).unwrap());
        assert_eq!(scores(PLAIN), [0, 1, 2, 3, 4]);
        assert_eq!(
            scores(Sampling {
                min_p: 0.3,
                ..PLAIN
            }),
            [0, 1, 2]
        );
        assert_eq!(
            scores(Sampling {
                top_p: 0.45,
                ..PLAIN
            }),
            [0]
        );
        assert_eq!(
            scores(Sampling {
                top_p: 0.0,
                ..PLAIN
            }),
            [0]
        );
        // of equal ones, the lower id comes first
        assert_eq!(
            scores(Sampling {
                top_p: 0.6,
                ..PLAIN
            }),
            [0, 2]
        );
        let gpt2 = Sampling {
            penalty_first: false,
            ..PLAIN
        };
        assert_eq!(scores(Sampling { top_k: 1, ..gpt2 }), [0]);
        // those that share the last place all stay
        assert_eq!(scores(Sampling { top_k: 2, ..gpt2 }), [0, 1, 2]);
        assert_eq!(
            scores(Sampling {
                top_k: 2,
                top_p: 0.6,
                ..gpt2
            }),
            [0, 2]
        );
    }

    #[test]
    fn the_penalty_comes_first_or_last() {
        let logits = [2.0, 1.9, -1.0];
        let first = Sampling {
            repetition_penalty: 2.0,
            min_p: 0.9,
            ..PLAIN
        };
        assert_eq!(kept(&first.scores(&logits, &[0, 0]).unwrap()), [1]);
        let last = Sampling {
            repetition_penalty: 2.0,
            top_k: 1,
            penalty_first: false,
            ..PLAIN
        };
        assert_eq!(last.scores(&logits, &[0, 0]).unwrap()[0], 1.0);
        let greedy = Sampling {
            temperature: 0.0,
            repetition_penalty: 2.0,
            ..PLAIN
        };
        assert_eq!(greedy.scores(&logits, &[0, 2]).unwrap(), [1.0, 1.9, -2.0]);
        assert_eq!(greedy.draw(&logits, &[0], draw(0, 0)).unwrap(), 1);
        assert_eq!(greedy.draw(&[1.0, 3.0, 3.0], &[], draw(0, 0)).unwrap(), 1);
    }

    #[test]
    fn draws_follow_the_chances() {
        let chances = [0.5_f64, 0.0, 0.3, 0.15, 0.05];
        let logits = chances.map(|p| p.ln() as f32);
        let count = 20_000;
        let mut times = [0; 5];
        for step in 0..count {
            times[PLAIN.draw(&logits, &[], draw(11, step)).unwrap() as usize] += 1;
        }
        for (token, p) in chances.iter().enumerate() {
            let deviation = (f64::from(count) * p * (1.0 - p)).sqrt();
            let off = f64::from(times[token]) - f64::from(count) * p;
            assert!(off.abs() <= 5.0 * deviation, "{token}: {}", times[token]);
        }
    }

    #[test]
    fn a_draw_is_where_the_uniform_number_falls() {
        let mut numbers = Numbers::new(4);
        let logits = numbers.normal(100);
        let exact: Vec<f64> = logits.iter().map(|x| f64::from(*x).exp()).collect();
        let total: f64 = exact.iter().sum();
        for step in 0..200 {
            let target = uniform(3, step, 2) * total;
            let mut sum = 0.0;
            let expected = exact.iter().position(|p| {
                sum += p;
                sum > target
            });
            let found = PLAIN
                .draw(
                    &logits,
                    &[],
                    Draw {
                        seed: 3,
                        step,
                        attempt: 2,
                    },
                )
                .unwrap();
            assert_eq!(Some(found as usize), expected);
        }
    }

    #[test]
    fn what_is_no_number_is_not_drawn_from() {
        for bad in [f32::NAN, f32::INFINITY] {
            for temperature in [0.0, 1.0] {
                let sampling = Sampling {
                    temperature,
                    ..PLAIN
                };
                let error = sampling
                    .draw(&[0.0, bad, 1.0], &[], draw(0, 0))
                    .unwrap_err();
                assert_eq!(error.code, Code::NotFinite);
            }
        }
        let never = f32::NEG_INFINITY;
        assert_eq!(
            PLAIN.draw(&[never; 3], &[], draw(0, 0)).unwrap_err().code,
            Code::NotFinite
        );
        assert_eq!(
            PLAIN.draw(&[], &[], draw(0, 0)).unwrap_err().code,
            Code::NotFinite
        );
        assert_eq!(PLAIN.draw(&[never, 0.0], &[], draw(0, 0)), Ok(1));
        let hot = Sampling {
            temperature: 0.001,
            ..PLAIN
        };
        assert_eq!(
            hot.draw(&[1e38, 0.0], &[], draw(0, 0)).unwrap_err().code,
            Code::NotFinite
        );
    }

    #[test]
    fn arguments_are_checked() {
        let bad = [
            Sampling {
                temperature: -1.0,
                ..PLAIN
            },
            Sampling {
                temperature: f64::NAN,
                ..PLAIN
            },
            Sampling {
                repetition_penalty: 0.0,
                ..PLAIN
            },
            Sampling {
                top_p: 1.5,
                ..PLAIN
            },
            Sampling {
                min_p: f64::INFINITY,
                ..PLAIN
            },
        ];
        for sampling in bad {
            assert_eq!(
                sampling.draw(&[0.0], &[], draw(0, 0)).unwrap_err().code,
                Code::Invalid,
                "{sampling:?}"
            );
        }
        assert_eq!(
            PLAIN.draw(&[0.0], &[1], draw(0, 0)).unwrap_err().code,
            Code::Invalid
        );
    }
}
