//! Other software calls firmware between preflight and the update: another driver, or an operator
//! with another tool.

use anyhow::{ensure, Result};
use tdx_seamldr_core::abi::{Scenario, ShutdownRequest};
use tdx_seamldr_core::{CurrentVmcs, InstallRequest, Seamldr, SpinLock, TdxImage, TdxModule};
use tdx_seamldr_mock::{PageBuf, SimPlatform, TestImage};

use crate::outcomes::case::v2;
use crate::outcomes::linux;
use crate::world::{new_image, old_image, TDS};

/// The image that the other software installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// The image of the running module.
    Same,
    /// The image that this update installs.
    New,
    /// An image with a higher SVN than both.
    Other,
    /// An image with the running module's SVN and another hash.
    SameSvn,
}

impl Image {
    fn build(self) -> PageBuf {
        let image = match self {
            Self::Same => old_image(),
            Self::New => new_image(),
            Self::Other => TestImage { svn_minor: 7, ..new_image() },
            Self::SameSvn => TestImage { fill: 0x91, ..old_image() },
        };
        v2(image).build()
    }
}

/// What the other software does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Somebody {
    /// Updates the module.
    Updates(Image),
    /// Updates the module with the last remaining update.
    UsesLastUpdate(Image),
    /// Loads a module and starts new TDs.
    Loads(Image),
    /// Shuts the module down and stops there.
    ShutsDown,
    /// Shuts the module down, installs another one, and stops there.
    Installs(Image),
    /// Calls SEAMLDR.INSTALL on one LP while a module runs.
    OpensSession,
}

impl Somebody {
    pub(super) const ALL: [Self; 14] = [
        Self::Updates(Image::Same),
        Self::Updates(Image::New),
        Self::Updates(Image::Other),
        Self::Updates(Image::SameSvn),
        Self::UsesLastUpdate(Image::Same),
        Self::UsesLastUpdate(Image::New),
        Self::Loads(Image::Same),
        Self::Loads(Image::New),
        Self::Loads(Image::Other),
        Self::Loads(Image::SameSvn),
        Self::ShutsDown,
        Self::Installs(Image::Same),
        Self::Installs(Image::New),
        Self::OpensSession,
    ];

    /// Prepares a platform for this action.
    pub(super) fn prepare(self, platform: &SimPlatform) {
        if let Self::UsesLastUpdate(_) = self {
            platform.with_model(|model| {
                model.set_num_remaining_updates(1);
                let database = model.seamdb_mut();
                database.used = database.size.saturating_sub(1);
            });
        }
    }

    pub(super) fn acts(self, platform: &SimPlatform) -> Result<()> {
        match self {
            Self::Updates(image) | Self::UsesLastUpdate(image) => {
                let end = linux::update(platform, &image.build(), false);
                ensure!(end.is_ok(), "the other software's update to {image:?} ends with {end:?}");
            }
            Self::Loads(image) => {
                install(platform, &image.build(), Scenario::Load, platform.online())?;
                platform.bring_up()?;
                for _ in 0..TDS {
                    platform.create_td()?;
                }
            }
            Self::ShutsDown => shut_down(platform)?,
            Self::Installs(image) => {
                shut_down(platform)?;
                install(platform, &image.build(), Scenario::Update, platform.online())?;
            }
            Self::OpensSession => {
                install(
                    platform,
                    &Image::New.build(),
                    Scenario::Update,
                    platform.online().take(1),
                )?;
            }
        }
        Ok(())
    }
}

fn shut_down(platform: &SimPlatform) -> Result<()> {
    let lp = platform.lp(0);
    TdxModule::new(&lp).sys_shutdown(ShutdownRequest { hv: 0, avoid_compat_sensitive: false })?;
    Ok(())
}

fn install(
    platform: &SimPlatform,
    file: &PageBuf,
    scenario: Scenario,
    lps: impl Iterator<Item = u32>,
) -> Result<()> {
    let (image, mut params) = (TdxImage::parse(file.as_bytes())?, PageBuf::zeroed(1));
    let request = InstallRequest::build(params.as_params(), &image, scenario, &platform.lp(0))?;
    let lock = SpinLock::new();
    for lp in lps {
        Seamldr::new(&platform.lp(lp), &lock, CurrentVmcs::Preserved)?.install(&request)?;
    }
    Ok(())
}
