//! Passes any status through every decoder and back. No decoder panics or loses information.

use std::cell::Cell;

use tdx_seamldr_core::abi::{
    FieldId, OperandId, SeamldrFeatures0, SeamldrInfoBuffer, SeamldrLeaf, SeamldrStatus,
    SensitiveReason, ShutdownRequest, TdxFeatures0, TdxLeaf, TdxStatus,
};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::update::linux::Dialect;
use tdx_seamldr_core::update::FailureCause;
use tdx_seamldr_core::{
    CurrentVmcs, InstallError, PageAddr, PhysAddr, SeamcallBackend, SeamcallRegs, Seamldr,
    SeamldrError, SpinLock, TdxError, TdxModule, Trap,
};
use tdx_seamldr_core::{Host, Patience};
use zerocopy::FromZeros;

use super::numbers::Numbers;
use super::params::prepared;

/// Firmware that gives the same answer to every call.
struct Answers {
    answer: Result<SeamcallRegs, Trap>,
    calls: Cell<u32>,
}

// SAFETY: this backend makes no call and accesses no memory.
unsafe impl SeamcallBackend for Answers {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        self.calls.set(self.calls.get().saturating_add(1));
        self.answer.map(|answer| *regs = answer)
    }
}

// SAFETY: the firmware accesses no memory.
unsafe impl Host for Answers {
    fn current_lp(&self) -> u32 {
        0
    }

    fn num_lps(&self) -> u32 {
        1
    }

    fn relax(&self) -> Patience {
        Patience::GiveUp
    }

    fn phys_addr(&self, _: *const u8) -> Option<PhysAddr> {
        Some(PhysAddr(0x1000))
    }
}

/// Takes RAX, RDX and R8 of an answer, 8 bytes each. A 25th byte makes the answer a trap.
pub fn status(input: &[u8]) {
    let mut numbers = Numbers(input);
    let (rax, rdx, r8) = (numbers.u64(), numbers.u64(), numbers.u64());
    for word in [rax, rdx, r8] {
        decode(word);
    }
    let regs = SeamcallRegs { rax, rdx, r8, ..SeamcallRegs::default() };
    let trap = usize::from(numbers.u8()).checked_sub(1).and_then(|trap| Trap::ALL.get(trap % 3));
    calls(&Answers { answer: trap.map_or(Ok(regs), |trap| Err(*trap)), calls: Cell::new(0) });
}

/// Decodes a number as everything that a number can be.
fn decode(word: u64) {
    let status = SeamldrStatus(word);
    let number = format!("{word:#018x}");
    assert!(format!("{status}").contains(&number), "{status}");
    assert_eq!(status.name(), status.info().map(|row| row.name));
    assert!(status.info().is_none_or(|row| row.status == status), "{status:?}");
    assert_eq!(format!("{status:?}").contains("SeamldrStatus"), status.name().is_none());
    let _ = status.class();

    let status = TdxStatus(word);
    assert!(format!("{status}").contains(&number), "{status}");
    assert_eq!(status.code().0 | u64::from(status.details()), word);
    assert!(status.info().is_none_or(|row| row.status.code() == status.code()), "{status:?}");
    let details = format!("{:#x}", status.details());
    let shown = format!("{status:?}");
    let is_whole = match status.info() {
        Some(row) if row.status == status => shown == row.name,
        Some(row) => shown.starts_with(row.name) && shown.ends_with(&details),
        None => shown.contains(&number),
    };
    assert!(is_whole, "{shown}");
    assert!(!status.is_success() || !status.is_failure());
    assert!(!status.is_error() || status.is_failure());
    assert_eq!(u64::from(status.class()), word >> 40 & 0xff);
    if let Some(operand) = status.operand() {
        assert_eq!(operand, OperandId(status.details()));
        assert!(operand.name().is_none_or(|name| !name.is_empty()));
    }
    if let Some((reason, count)) = status.sensitive() {
        let number = match reason {
            SensitiveReason::TdBuild => 0,
            SensitiveReason::InterruptedMigration => 1,
            SensitiveReason::Unknown(other) => other,
        };
        assert_eq!(u32::from(count) << 16 | u32::from(number), status.details());
    }
    if let Some(trap) = Trap::from_status(status) {
        assert_eq!(trap.status(), status);
    }

    if let Some(leaf) = SeamldrLeaf::from_rax(word) {
        assert_eq!(leaf.rax(), word);
    }
    let leaf = TdxLeaf::from_rax(word);
    assert_eq!(leaf.rax(0), word & 0xffff);
    assert_eq!(format!("{leaf:?}").starts_with("TdxLeaf"), leaf.name().is_none());
    let [low, high, version, ..] = word.to_le_bytes();
    let request = ShutdownRequest {
        hv: u16::from_le_bytes([low, high]),
        avoid_compat_sensitive: version & 1 != 0,
    };
    assert_eq!(request.rcx(), word & 0x1_ffff);

    let field = FieldId(word);
    assert!([1, 2, 4, 8].contains(&field.element_size()));
    let parts = u64::from(field.is_non_architectural()) << 63
        | u64::from(field.class()) << 56
        | u64::from(field.element_size().trailing_zeros()) << 32
        | u64::from(field.field_code());
    assert_eq!(parts, word & 0xbf00_0003_00ff_ffff);
    assert!(format!("{field:?}").contains(&number) || field.name().is_some());

    assert_eq!(TdxFeatures0::from_bits_retain(word).bits(), word);
    assert_eq!(SeamldrFeatures0::from_bits_retain(word).bits(), word);
    let _ = format!(
        "{:?} {:?}",
        TdxFeatures0::from_bits_retain(word),
        SeamldrFeatures0::from_bits_retain(word)
    );
    if let Some(format) = ImageFormat::from_version(u16::from_le_bytes([low, high])) {
        assert_eq!(format.version(), u16::from_le_bytes([low, high]));
    }
    let page = PageAddr::new(PhysAddr(word));
    assert_eq!(page.map(PageAddr::get), word.is_multiple_of(4096).then_some(PhysAddr(word)));
    assert_eq!(CurrentVmcs::from_vmx_basic(word) == CurrentVmcs::Preserved, word >> 60 & 1 == 1);
}

/// Gives the same answer to every typed call. The caller gets it unchanged.
fn calls(firmware: &Answers) {
    let lock = SpinLock::new();
    let seamldr = Seamldr::new(firmware, &lock, CurrentVmcs::Preserved).expect("no erratum");
    let found = seamldr.info(&mut SeamldrInfoBuffer::new_zeroed()).map(drop);
    match firmware.answer {
        Err(trap) => assert_eq!(found, Err(SeamldrError::Trap(trap))),
        Ok(SeamcallRegs { rax: 0, .. }) => assert_eq!(found, Ok(())),
        Ok(SeamcallRegs { rax, .. }) => {
            assert_eq!(found, Err(SeamldrError::Status(SeamldrStatus(rax))))
        }
    }
    let found = prepared(|request| seamldr.install(request));
    match firmware.answer {
        Err(trap) => assert_eq!(found, Err(InstallError::Trap(trap))),
        Ok(SeamcallRegs { rax: 0, .. }) => assert_eq!(found, Ok(())),
        Ok(SeamcallRegs { rax, rdx, .. }) => {
            let refused = InstallError::Refused { status: SeamldrStatus(rax), rdx };
            assert_eq!(found, Err(refused));
            assert_eq!(refused.is_recoverable(), rdx == 0);
            assert!(refused.to_string().contains(&format!("{rax:#018x}")), "{refused}");
            shown(FailureCause::Seamldr {
                leaf: SeamldrLeaf::Install,
                status: SeamldrStatus(rax),
                rdx,
            });
        }
    }

    let module = TdxModule::new(firmware);
    let before = firmware.calls.get();
    let read = module.sys_rd(FieldId::MODULE_HV);
    let tries = firmware.calls.get().saturating_sub(before);
    match firmware.answer {
        Err(trap) => assert_eq!(read, Err(TdxError::Trap(trap))),
        Ok(SeamcallRegs { rax, rdx, r8, .. }) => {
            let status = TdxStatus(rax);
            assert_eq!(tries, if status == TdxStatus::RND_NO_ENTROPY { 10 } else { 1 });
            if status.is_failure() {
                assert_eq!(read, Err(TdxError::Status(status)));
            } else {
                let read = read.expect("no failure");
                assert_eq!((read.status, read.value, read.next), (status, r8, FieldId(rdx)));
            }
            shown(FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, status));
        }
    }
    let shutdown = module.sys_shutdown(ShutdownRequest { hv: 0, avoid_compat_sensitive: true });
    assert_eq!(shutdown.map(drop), read.map(drop));
    assert_eq!(shutdown.ok(), read.ok().map(|read| read.status));
    assert_eq!(module.sys_update().ok(), shutdown.ok());
    assert_eq!(module.sys_update_v1(TdxFeatures0::empty()).ok(), shutdown.ok());
    assert_eq!(module.sys_init(0).err(), read.err());
    if let Err(error) = module.version() {
        assert_eq!(Err(error), read.map(drop));
        let _ = error.to_string();
    }
}

/// Displays a failure, and converts it to Linux's status.
fn shown(cause: FailureCause) {
    assert!(!cause.to_string().is_empty() && !cause.code().is_empty());
    for dialect in [Dialect::V6, Dialect::Mainline] {
        assert!(!cause.errno().upload_error(dialect).as_str().is_empty());
    }
}
