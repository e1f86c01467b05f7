//! TDs, with the expected content of their memory and their expected measurement.

use std::ops::DerefMut;

use crate::model::{Measurement, Platform, SeamMemory, TdError, TdId, TdPhase};

/// No module is ready, or there is no room for another TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no TD was made: the platform has no ready module, or no room for another TD")]
pub struct NoRoomForTd;

/// The TDs of one platform, with their expected memory and measurement.
#[derive(Clone, Debug, Default)]
pub struct Tds {
    made: Vec<Expected>,
}

/// The expected memory and measurement of a TD.
#[derive(Clone, Copy, Debug)]
struct Expected {
    id: TdId,
    /// Content of the private memory.
    secret: [u8; 32],
    /// Measurement so far.
    measurement: Measurement,
}

impl Tds {
    /// Returns an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { made: Vec::new() }
    }

    /// Makes a TD in this phase.
    ///
    /// # Errors
    ///
    /// No module is ready, or there is no room for another TD.
    pub fn create<M: DerefMut<Target = SeamMemory>>(
        &mut self,
        platform: &mut Platform<M>,
        phase: TdPhase,
    ) -> Result<TdId, NoRoomForTd> {
        let number = self.made.len().to_le_bytes();
        let mut secret = [0x5a; 32];
        secret.iter_mut().zip(number.iter().cycle()).for_each(|(byte, number)| *byte ^= number);
        let id = platform.create_td(phase, secret).ok_or(NoRoomForTd)?;
        let mut measurement = Measurement::default();
        measurement.extend(&secret);
        self.made.push(Expected { id, secret, measurement });
        Ok(id)
    }

    /// Adds a page with this content to a TD in build, and to its MRTD.
    ///
    /// # Errors
    ///
    /// See [`TdError`].
    pub fn extend<M: DerefMut<Target = SeamMemory>>(
        &mut self,
        platform: &mut Platform<M>,
        td: TdId,
        data: &[u8],
    ) -> Result<(), TdError> {
        let expected = self.made.iter_mut().find(|made| made.id == td).ok_or(TdError::Gone)?;
        platform.extend_td(td, data)?;
        expected.measurement.extend(data);
        Ok(())
    }

    /// Completes a TD's build or its migration; the TD then runs. Returns whether the measurement
    /// or MAC is correct.
    ///
    /// # Errors
    ///
    /// See [`TdError`].
    pub fn finish<M: DerefMut<Target = SeamMemory>>(
        &mut self,
        platform: &mut Platform<M>,
        td: TdId,
    ) -> Result<bool, TdError> {
        let expected = self.made.iter_mut().find(|made| made.id == td).ok_or(TdError::Gone)?;
        let phase = platform.td(td).ok_or(TdError::Gone)?.phase();
        let found = platform.finish_td(td, phase)?;
        expected.measurement.finish();
        Ok(found == expected.measurement.value())
    }

    /// Returns whether a TD can run and its memory is intact.
    #[must_use]
    pub fn is_alive<M: DerefMut<Target = SeamMemory>>(
        &self,
        platform: &Platform<M>,
        td: TdId,
    ) -> bool {
        self.made.iter().any(|made| made.id == td && made.is_alive(platform))
    }

    /// Returns whether a TD's measurement so far, or the MAC of its migration so far, is correct.
    /// Returns `None` if there is no such TD.
    #[must_use]
    pub fn measurement_is_right<M: DerefMut<Target = SeamMemory>>(
        &self,
        platform: &Platform<M>,
        td: TdId,
    ) -> Option<bool> {
        let expected = self.made.iter().find(|made| made.id == td)?;
        Some(platform.td(td)?.measurement() == expected.measurement.value())
    }

    /// Returns the TD with this number, if it was made.
    #[must_use]
    pub fn with_number(&self, number: u32) -> Option<TdId> {
        self.made.iter().map(|made| made.id).find(|id| u32::from(id.number()) == number)
    }

    /// Returns the number of TDs that were made.
    #[must_use]
    pub fn count(&self) -> usize {
        self.made.len()
    }

    /// Returns the number of TDs that can run and whose memory is intact.
    #[must_use]
    pub fn count_alive<M: DerefMut<Target = SeamMemory>>(&self, platform: &Platform<M>) -> usize {
        self.made.iter().filter(|made| made.is_alive(platform)).count()
    }
}

impl Expected {
    fn is_alive<M: DerefMut<Target = SeamMemory>>(&self, platform: &Platform<M>) -> bool {
        platform.td_secret(self.id) == Some(self.secret)
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{TdError, TdPhase};
    use crate::{SimPlatform, TestImage};
    use tdx_seamldr_core::TdxImage;

    #[test]
    fn a_measurement_is_correct_until_a_page_is_added_behind_the_list() {
        let file = TestImage::default().build();
        let platform =
            SimPlatform::builder().boot(&TdxImage::parse(file.as_bytes()).unwrap()).unwrap();
        let tds = [(); 2].map(|()| platform.create_td_in(TdPhase::Build).unwrap());
        for td in tds {
            platform.extend_td(td, b"first").unwrap();
            platform.extend_td(td, b"second").unwrap();
            assert_eq!(platform.td_measurement_is_right(td), Some(true));
        }
        // Adds a page without telling the list of expectations.
        platform.with_model(|model| model.extend_td(tds[1], b"another").unwrap());
        assert_eq!(tds.map(|td| platform.td_measurement_is_right(td)), [Some(true), Some(false)]);
        assert_eq!(tds.map(|td| platform.finish_td(td)), [Ok(true), Ok(false)]);
        assert_eq!(
            tds.map(|td| platform.td_measurement_is_right(td)),
            [Some(true), Some(false)],
            "for good"
        );
        assert_eq!(platform.extend_td(tds[0], b"late"), Err(TdError::Phase));
    }
}
