//! Names for things that may be gone: a slab whose slots carry a generation.
//!
//! The kernel gives back a number that we gave it, possibly after the thing was removed and its
//! slot used again (an event that was already in the buffer, a completion that was under way). The
//! generation in the [`Token`] tells the old tenant from the new.
//!
//! A token leaves the top [`Token::SPARE_BITS`] bits of its 64 unused, for backends to keep
//! flags beside it in the kernel's user data.

use std::num::NonZeroU32;

use crate::pages::Pages;

const GENERATION_BITS: u32 = 32 - Token::SPARE_BITS;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const NO_SLOT: u32 = u32::MAX;

/// Which of the tenants of a slot. Never zero, so that an `Option<Token>` takes no more than a token.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
struct Generation(NonZeroU32);

impl Generation {
    const MARK: NonZeroU32 = NonZeroU32::new(1 << 31).unwrap();
    const FIRST: Self = Self::of(0);

    #[inline]
    const fn of(number: u32) -> Self {
        match NonZeroU32::new(number & GENERATION_MASK | Self::MARK.get()) {
            Some(marked) => Self(marked),
            None => Self(Self::MARK),
        }
    }

    #[inline]
    const fn number(self) -> u32 {
        self.0.get() & GENERATION_MASK
    }

    #[inline]
    const fn next(self) -> Self {
        Self::of(self.number() + 1)
    }
}

/// The name of a value in a [`Slots`]: where it is, and which of the tenants of that place.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub struct Token {
    index: u32,
    generation: Generation,
}

impl Token {
    /// How many of the highest bits of [`to_u64`](Self::to_u64) are always zero.
    pub const SPARE_BITS: u32 = 2;

    /// A token that no [`Slots`] gives out; for sources that live outside one, a waker say.
    pub const fn reserved(number: u32) -> Self {
        Self { index: NO_SLOT, generation: Generation::of(number) }
    }

    /// The token as the kernel's user data.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        ((self.generation.number() as u64) << 32) | self.index as u64
    }

    /// The token in the kernel's user data; the spare bits are ignored.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of 64 bits")]
    pub const fn from_u64(data: u64) -> Self {
        Self { index: data as u32, generation: Generation::of((data >> 32) as u32) }
    }

    /// Where in the slab the value is: small and dense, hence fit to index a side table.
    #[inline]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

#[derive(Debug)]
enum Slot<V> {
    Occupied {
        generation: Generation,
        value: V,
    },
    /// `generation` is the next tenant's; `next_free` continues the list of free slots.
    Vacant {
        generation: Generation,
        next_free: u32,
    },
}

/// A slab: values at places where they stay, found by [`Token`] in constant time.
#[derive(Debug)]
pub struct Slots<V> {
    places: Pages<Slot<V>>,
    /// Head of the list of vacant slots, or `NO_SLOT`. The last one freed is used first, as its
    /// memory is warm.
    free: u32,
    len: usize,
}

impl<V> Default for Slots<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Slots<V> {
    /// An empty slab; allocates nothing.
    pub const fn new() -> Self {
        Self { places: Pages::new(), free: NO_SLOT, len: 0 }
    }

    /// How many values there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps `value` and names it.
    ///
    /// # Panics
    /// When four thousand million values are held at once.
    #[inline]
    pub fn insert(&mut self, value: V) -> Token {
        self.len += 1;
        if let Some(slot) = self.places.get_mut(self.free as usize)
            && let Slot::Vacant { generation, next_free } = *slot
        {
            let token = Token { index: self.free, generation };
            self.free = next_free;
            *slot = Slot::Occupied { generation, value };
            return token;
        }
        let index = u32::try_from(self.places.len()).ok().filter(|&index| index != NO_SLOT);
        let generation = Generation::FIRST;
        let token = Token { index: index.expect("fewer than 2^32 slots"), generation };
        self.places.push(Slot::Occupied { generation, value });
        token
    }

    /// The value of that name, if it is still there.
    #[inline]
    pub fn get(&self, token: Token) -> Option<&V> {
        match self.places.get(token.index()) {
            Some(Slot::Occupied { generation, value }) if *generation == token.generation => {
                Some(value)
            }
            _ => None,
        }
    }

    /// The value of that name, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut V> {
        match self.places.get_mut(token.index()) {
            Some(Slot::Occupied { generation, value }) if *generation == token.generation => {
                Some(value)
            }
            _ => None,
        }
    }

    /// Whether the value of that name is still there.
    #[inline]
    pub fn contains(&self, token: Token) -> bool {
        self.get(token).is_some()
    }

    /// Takes the value of that name out; the name is dead from now on.
    #[inline]
    pub fn remove(&mut self, token: Token) -> Option<V> {
        if !self.contains(token) {
            return None;
        }
        self.vacate(token.index)
    }

    fn vacate(&mut self, index: u32) -> Option<V> {
        let slot = self.places.get_mut(index as usize)?;
        let Slot::Occupied { generation, .. } = *slot else { return None };
        let vacant = Slot::Vacant { generation: generation.next(), next_free: self.free };
        let Slot::Occupied { value, .. } = std::mem::replace(slot, vacant) else { return None };
        self.free = index;
        self.len -= 1;
        Some(value)
    }

    /// The values and their names, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &V)> {
        (0_u32..).zip(self.places.iter()).filter_map(|(index, slot)| match slot {
            Slot::Occupied { generation, value } => {
                Some((Token { index, generation: *generation }, value))
            }
            Slot::Vacant { .. } => None,
        })
    }

    /// Takes all values out, for the caller to drop; every name given out so far is dead.
    ///
    /// The slots stay, with their generations, so that no old name ever finds a new value.
    #[must_use = "dropping the values is the caller's act"]
    pub fn drain(&mut self) -> Vec<V> {
        let mut values = Vec::with_capacity(self.len);
        let count = u32::try_from(self.places.len()).unwrap_or(NO_SLOT);
        for index in (0..count).rev() {
            values.extend(self.vacate(index));
        }
        values.reverse();
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_names_find_nothing() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.index(), second.index());
        assert_ne!(first, second);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn drain_gives_everything_and_kills_the_names() {
        let mut slots = Slots::new();
        let tokens: Vec<_> = (0..5).map(|n| slots.insert(n)).collect();
        slots.remove(tokens[1]);
        assert_eq!(slots.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 2, 3, 4]);
        assert_eq!(slots.drain(), [0, 2, 3, 4]);
        assert!(slots.is_empty());
        for n in 5..10 {
            slots.insert(n);
        }
        assert!(tokens.iter().all(|token| !slots.contains(*token)));
        assert_eq!(slots.places.len(), 5);
    }

    #[test]
    fn tokens_pass_through_the_kernel() {
        let mut slots = Slots::new();
        let mut token = slots.insert(());
        for _ in 0..1_000 {
            slots.remove(token);
            token = slots.insert(());
        }
        let spare = u64::MAX << (64 - Token::SPARE_BITS);
        assert_eq!(token.to_u64() & spare, 0);
        assert_eq!(Token::from_u64(token.to_u64() | spare), token);
        assert!(!slots.contains(Token::reserved(0)));
    }

    #[test]
    fn generations_wrap_inside_their_bits() {
        let mut slots = Slots::new();
        slots.insert(());
        let generation = Generation::of(GENERATION_MASK);
        slots.places[0] = Slot::Occupied { generation, value: () };
        let last = Token { index: 0, generation };
        assert!(slots.remove(last).is_some());
        assert_eq!(slots.insert(()), Token { index: 0, generation: Generation::FIRST });
        assert_eq!(size_of::<Option<Token>>(), size_of::<Token>());
    }
}
