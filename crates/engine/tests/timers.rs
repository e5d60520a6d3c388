//! `Timers` against a model too simple to be wrong: a list that is searched from end to end.

use oxloop_engine::{Timers, Timestamp, Token};

/// Live timers in the order of insertion.
#[derive(Default)]
struct Model {
    live: Vec<(Timestamp, Token, u32)>,
}

impl Model {
    /// The first of the earliest.
    fn earliest(&self) -> Option<usize> {
        (0..self.live.len()).min_by_key(|&index| (self.live[index].0, index))
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        let index = self.earliest().filter(|&index| self.live[index].0 <= now)?;
        Some(self.live.remove(index).2)
    }

    fn cancel(&mut self, token: Token) -> Option<u32> {
        let index = self.live.iter().position(|(_, known, _)| *known == token)?;
        Some(self.live.remove(index).2)
    }
}

/// xorshift64: the same numbers on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or(0)
    }
}

/// One random history; `cancels` of 10 operations cancel.
fn history(seed: u64, span: usize, cancels: usize) {
    let mut random = Random(seed);
    let mut timers = Timers::new();
    let mut model = Model::default();
    // Every token ever given out, so that dead ones are tried as well.
    let mut tokens = Vec::new();
    let mut now = Timestamp(0);
    for payload in 0..2_000 {
        let operation = random.below(10);
        if operation < cancels && !tokens.is_empty() {
            let token = tokens[random.below(tokens.len())];
            assert_eq!(timers.get(token).copied(), timers.get_mut(token).copied());
            assert_eq!(timers.cancel(token), model.cancel(token), "seed {seed}");
            assert_eq!(timers.get(token), None);
        } else if operation < 9 {
            let when = Timestamp(now.0 + i64::try_from(random.below(span)).unwrap_or(0) - 2);
            let token = timers.insert(when, payload);
            assert_eq!(timers.get(token), Some(&payload));
            model.live.push((when, token, payload));
            tokens.push(token);
        } else {
            now.0 += i64::try_from(random.below(span)).unwrap_or(0);
            loop {
                let fired = timers.pop_due(now);
                assert_eq!(fired, model.pop_due(now), "seed {seed}");
                if fired.is_none() {
                    break;
                }
            }
        }
        assert_eq!(timers.len(), model.live.len());
        let earliest = model.earliest().map(|index| model.live[index].0);
        assert_eq!(timers.next_deadline(), earliest, "seed {seed}");
    }
    let mut left = timers.drain();
    left.sort_unstable();
    let expected: Vec<_> = model.live.iter().map(|(_, _, payload)| *payload).collect();
    assert_eq!(left, expected);
    assert_eq!(timers.next_deadline(), None);
}

#[test]
fn agrees_with_the_model() {
    for seed in 1..40 {
        history(seed, 1_000, 3);
        history(seed, 5, 3);
        history(seed, 100, 7);
    }
}

#[test]
fn iterates_over_the_live_ones() {
    let mut timers = Timers::new();
    let tokens: Vec<_> = (0..200).map(|payload| timers.insert(Timestamp(0), payload)).collect();
    for token in tokens.iter().step_by(2) {
        timers.cancel(*token);
    }
    let mut live: Vec<_> = timers.iter().copied().collect();
    live.sort_unstable();
    assert_eq!(live, (1..200).step_by(2).collect::<Vec<_>>());
}

#[test]
fn a_payload_is_dropped_when_it_is_cancelled_and_not_when_it_is_due() {
    use std::rc::Rc;

    let mut timers = Timers::new();
    let payload = Rc::new(());
    let token = timers.insert(Timestamp(i64::MAX), Rc::clone(&payload));
    timers.insert(Timestamp(i64::MAX), Rc::clone(&payload));
    drop(timers.cancel(token));
    assert_eq!(Rc::strong_count(&payload), 2);
    drop(timers);
    assert_eq!(Rc::strong_count(&payload), 1);
}

#[test]
fn draining_kills_the_names() {
    let mut timers = Timers::new();
    let token = timers.insert(Timestamp(1), 1);
    assert_eq!(timers.drain(), [1]);
    timers.insert(Timestamp(2), 2);
    assert_eq!(timers.cancel(token), None);
    assert_eq!(timers.pop_due(Timestamp(2)), Some(2));
}
