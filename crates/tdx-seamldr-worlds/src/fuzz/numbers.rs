//! Reads numbers from an input. Missing bytes are 0, so every input is valid.

/// The rest of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a>(pub(super) &'a [u8]);

impl<'a> Numbers<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the next bytes, at most `len`.
    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn array<const LEN: usize>(&mut self) -> [u8; LEN] {
        let mut array = [0; LEN];
        array.iter_mut().zip(self.bytes(LEN)).for_each(|(slot, byte)| *slot = *byte);
        array
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Returns one of these choices, selected by one byte.
    pub(super) fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = usize::from(self.u8()).checked_rem(choices.len());
        *index.and_then(|index| choices.get(index)).expect("something to choose from")
    }
}
