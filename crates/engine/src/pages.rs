//! A table that grows by pages: what is in it never moves.
//!
//! A vector that doubles copies everything into a block twice as large and leaves a hole of the old size behind, which
//! is as much memory again for a while: with 4,000 connections a third of what the loop has for each.

use std::ops::{Index, IndexMut};

/// How many values a page has.
const PAGE: usize = 64;

/// Values by number, from 0 on.
#[derive(Debug)]
pub struct Pages<V> {
    /// All but the last one are full. The first one grows as a vector does, the others have room for all from the
    /// beginning.
    pages: Vec<Vec<V>>,
}

impl<V> Default for Pages<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Pages<V> {
    /// No values; allocates nothing.
    pub const fn new() -> Self {
        Self { pages: Vec::new() }
    }

    /// How many values there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.len())
    }

    /// Whether there is no value.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The value of that number.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&V> {
        self.pages.get(index / PAGE)?.get(index % PAGE)
    }

    /// The value of that number.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut V> {
        self.pages.get_mut(index / PAGE)?.get_mut(index % PAGE)
    }

    /// Adds a value at the end.
    pub fn push(&mut self, value: V) {
        match self.pages.last_mut() {
            Some(last) if last.len() < PAGE => last.push(value),
            last => {
                let mut page = if last.is_none() { Vec::new() } else { Vec::with_capacity(PAGE) };
                page.push(value);
                self.pages.push(page);
            }
        }
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.pages.iter().flatten()
    }

    /// The values in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.pages.iter_mut().flatten()
    }
}

impl<V> Index<usize> for Pages<V> {
    type Output = V;

    #[inline]
    fn index(&self, index: usize) -> &V {
        &self.pages[index / PAGE][index % PAGE]
    }
}

impl<V> IndexMut<usize> for Pages<V> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut V {
        &mut self.pages[index / PAGE][index % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_numbers_and_places() {
        let mut pages = Pages::new();
        assert!(pages.is_empty() && pages.get(0).is_none());
        let mut places = Vec::new();
        for number in 0..=2 * PAGE {
            assert_eq!(pages.len(), number);
            pages.push(number);
            if number >= PAGE {
                places.push(&raw const pages[number]);
            }
        }
        assert!(pages.iter().copied().eq(0..=2 * PAGE));
        for (number, place) in (PAGE..).zip(places) {
            assert_eq!(&raw const pages[number], place);
        }
        pages[PAGE] = 7;
        *pages.get_mut(0).expect("pushed") = 8;
        assert_eq!(
            (pages.get(0), pages.get(PAGE), pages.get(2 * PAGE + 1)),
            (Some(&8), Some(&7), None)
        );
        pages.iter_mut().for_each(|value| *value += 1);
        assert_eq!((pages[0], pages[2 * PAGE]), (9, 2 * PAGE + 1));
    }
}
