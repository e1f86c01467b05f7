//! Tests of the registers of each typed call, and of its result. The backend plays back a script.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    clippy::as_conversions
)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tdx_seamldr_core::abi::{
    FieldId, SeamldrInfoBuffer, SeamldrStatus, ShutdownRequest, TdxFeatures0, TdxStatus,
};
use tdx_seamldr_core::abi::{
    PSysInfoBuffer, Scenario, SeamSigstruct, SeamldrParamsBuffer, PAGE_SIZE,
};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::{Facts, HandoffRange};
use tdx_seamldr_core::{
    BuildError, CurrentVmcs, Host, InstallError, InstallRequest, Lock, MachineId, ModuleState,
    Part, Patience, PhysAddr,
};
use tdx_seamldr_core::{
    SeamcallBackend, SeamcallRegs, Seamldr, SeamldrError, TdxError, TdxImage, TdxModule, Trap,
};
use zerocopy::{FromZeros, IntoBytes};

type Answer = fn(&mut SeamcallRegs) -> Result<(), Trap>;

/// A backend that plays back answers. It records each call, and whether the lock was held.
#[derive(Default)]
struct Script {
    answers: RefCell<VecDeque<Answer>>,
    calls: RefCell<Vec<(SeamcallRegs, bool)>>,
    locked: Cell<bool>,
    machine: u64,
    /// The first address for which the host has another answer: no page, or another page.
    strange: Option<(*const u8, Option<PhysAddr>)>,
}

impl Script {
    fn of(answers: &[Answer]) -> Self {
        Self { answers: RefCell::new(answers.iter().copied().collect()), ..Self::default() }
    }

    fn calls(&self) -> Vec<SeamcallRegs> {
        assert!(self.answers.borrow().is_empty(), "the script has answers left");
        self.calls.borrow().iter().map(|(regs, _)| *regs).collect()
    }
}

// SAFETY: touches no memory.
unsafe impl SeamcallBackend for Script {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        self.calls.borrow_mut().push((*regs, self.locked.get()));
        let answer = self.answers.borrow_mut().pop_front().unwrap();
        answer(regs)
    }
}

impl Lock for Script {
    type Held<'a> = ();

    fn acquire(&self) {
        assert!(!self.locked.replace(true), "the lock is held already");
    }

    fn release(&self, (): ()) {
        assert!(self.locked.replace(false), "the lock is not held");
    }
}

// SAFETY: no code reads or writes these addresses.
unsafe impl Host for Script {
    fn current_lp(&self) -> u32 {
        0
    }

    fn num_lps(&self) -> u32 {
        1
    }

    fn relax(&self) -> Patience {
        Patience::GiveUp
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        match self.strange {
            Some((from, answer)) if from == address => answer,
            _ => Some(physical(address)),
        }
    }

    fn machine(&self) -> MachineId {
        MachineId(self.machine)
    }
}

fn physical(address: *const u8) -> PhysAddr {
    PhysAddr((address.addr() as u64) ^ 0x7f00_0000_0000)
}

fn seamldr(script: &Script) -> Seamldr<'_, Script, Script> {
    Seamldr::new(script, script, CurrentVmcs::Preserved).unwrap()
}

const OK: Answer = |regs| {
    regs.rax = 0;
    Ok(())
};

fn regs(rax: u64, rcx: u64, rdx: u64) -> SeamcallRegs {
    SeamcallRegs { rax, rcx, rdx, ..SeamcallRegs::default() }
}

#[test]
fn new_rejects_a_cpu_with_the_vmcs_erratum() {
    let script = Script::default();
    assert_eq!(CurrentVmcs::from_vmx_basic(1 << 60 | 0x1234), CurrentVmcs::Preserved);
    assert_eq!(CurrentVmcs::from_vmx_basic(!(1 << 60)), CurrentVmcs::Invalidated);
    let error = Seamldr::new(&script, &script, CurrentVmcs::Invalidated).unwrap_err();
    assert!(error.to_string().contains("IA32_VMX_BASIC bit 60 is 0, should be 1"));
}

#[test]
fn seamldr_calls_hold_the_lock_and_pass_the_address_of_the_buffer() {
    let script = Script::of(&[OK, OK, OK]);
    let (mut info, mut sysinfo) = (SeamldrInfoBuffer::zeroed(), Box::new(PSysInfoBuffer::zeroed()));
    let info_address = physical((&raw const info).cast()).0;
    let sysinfo_address = physical((&raw const *sysinfo).cast()).0;
    assert_eq!((info_address % 256, sysinfo_address % 2048), (0, 0));
    seamldr(&script).info(&mut info).unwrap();
    seamldr(&script).seam_info(&mut sysinfo).unwrap();
    seamldr(&script).shutdown().unwrap();
    let expected = [
        regs(0x8000000000000000, info_address, 0),
        regs(0x8000000000000003, sysinfo_address, 0),
        regs(0x8000000000000002, 0, 0),
    ];
    assert_eq!(script.calls(), expected);
    assert!(script.calls.borrow().iter().all(|(_, locked)| *locked));
}

#[test]
fn refusal_of_p_seamldr_is_returned_with_its_status() {
    let script = Script::of(&[
        |regs| {
            regs.rax = 0x8000_0123_4567_89ab;
            Ok(())
        },
        |_| Err(Trap::GeneralProtection),
    ]);
    let mut info = SeamldrInfoBuffer::zeroed();
    let mut call = || seamldr(&script).info(&mut info).map(drop).unwrap_err();
    assert_eq!(call(), SeamldrError::Status(SeamldrStatus(0x8000_0123_4567_89ab)));
    assert_eq!(call(), SeamldrError::Trap(Trap::GeneralProtection));
}

/// Page-aligned memory for a small image.
#[repr(C, align(4096))]
struct Pages([u8; 4 * PAGE_SIZE]);

/// Returns an image file with two pages of module.
fn small_file() -> Box<Pages> {
    let mut file = Box::new(Pages([0; 4 * PAGE_SIZE]));
    let sigstruct = SeamSigstruct::new_zeroed();
    let parts = ImageParts { sigstruct: sigstruct.as_bytes(), module: &[0; 2 * PAGE_SIZE] };
    parts.write(ImageFormat::ImageV2, &mut file.0).unwrap();
    file
}

#[test]
fn install_passes_the_parameters_page_and_returns_rdx() {
    let file = small_file();
    let image = TdxImage::parse(&file.0).unwrap();
    let mut page = Box::new(Pages([0xff; 4 * PAGE_SIZE]));
    let params: &mut SeamldrParamsBuffer =
        zerocopy::FromBytes::mut_from_bytes(&mut page.0[..PAGE_SIZE]).unwrap();
    let address = physical((&raw const *params).cast()).0;
    let request =
        InstallRequest::build(params, &image, Scenario::Update, &Script::default()).unwrap();
    assert_eq!(request.params().get().0, address);

    let script = Script::of(&[
        OK,
        |regs| {
            (regs.rax, regs.rdx) = (SeamldrStatus::EBADSIG.0, 0);
            Ok(())
        },
        |regs| {
            (regs.rax, regs.rdx) = (SeamldrStatus::EBADHASH.0, 0xfeed);
            Ok(())
        },
        |_| Err(Trap::VmFailInvalid),
    ]);
    let install = || seamldr(&script).install(&request);
    assert_eq!(install(), Ok(()));
    let kept = install().unwrap_err();
    assert_eq!(kept, InstallError::Refused { status: SeamldrStatus::EBADSIG, rdx: 0 });
    assert!(kept.is_recoverable());
    let gone = install().unwrap_err();
    assert_eq!(gone, InstallError::Refused { status: SeamldrStatus::EBADHASH, rdx: 0xfeed });
    assert!(!gone.is_recoverable());
    assert!(gone.to_string().contains("the old one is gone (RDX 65261)"));
    assert_eq!(install(), Err(InstallError::Trap(Trap::VmFailInvalid)));
    assert!(script.calls().iter().all(|call| *call == regs(0x8000000000000001, address, 0)));
}

#[test]
fn install_rejects_a_request_of_another_machine() {
    let file = small_file();
    let image = TdxImage::parse(&file.0).unwrap();
    let mut params = Box::new(SeamldrParamsBuffer::zeroed());
    let other = Script { machine: 7, ..Script::default() };
    let request = InstallRequest::build(&mut params, &image, Scenario::Update, &other).unwrap();
    assert_eq!((request.machine(), Script::default().machine()), (MachineId(7), MachineId::THIS));

    let script = Script::default();
    let refused = seamldr(&script).install(&request).unwrap_err();
    assert_eq!((refused, refused.is_recoverable()), (InstallError::OtherMachine, true));
    assert_eq!(script.calls(), [], "P-SEAMLDR is not called");
    let same = Script { machine: 7, ..Script::of(&[OK]) };
    assert_eq!(seamldr(&same).install(&request), Ok(()));
    assert_eq!(same.calls().len(), 1);
}

#[test]
fn module_calls_pass_their_operands_without_the_lock() {
    let script = Script::of(&[OK; 11]);
    let module = TdxModule::new(&script);
    module.sys_init(0).unwrap();
    module.sys_lp_init().unwrap();
    module.sys_rd(FieldId::MODULE_HV).unwrap();
    module.sys_shutdown(ShutdownRequest { hv: 3, avoid_compat_sensitive: true }).unwrap();
    module.sys_update().unwrap();
    module.sys_update_v1(TdxFeatures0::UPDATE_COMPATIBILITY).unwrap();
    module.sys_key_config().unwrap();
    module.sys_lp_shutdown().unwrap();
    module.sys_disable().unwrap();
    // SAFETY: the script touches no memory.
    unsafe { module.sys_config(PhysAddr(0x1200), 2, 0x21, true) }.unwrap();
    // SAFETY: the script touches no memory.
    unsafe { module.sys_tdmr_init(PhysAddr(0x4000_0000)) }.unwrap();
    let expected = [
        regs(33, 0, 0),
        regs(35, 0, 0),
        regs(34, 0, 0x8900000100000000),
        regs(52, 0x10003, 0),
        regs(53, 0, 0),
        SeamcallRegs { r9: 1 << 47, ..regs(0x10035, 0, 0) },
        regs(31, 0, 0),
        regs(44, 0, 0),
        regs(69, 0, 0),
        SeamcallRegs { r8: 0x10021, ..regs(45, 0x1200, 2) },
        regs(36, 0x4000_0000, 0),
    ];
    assert_eq!(script.calls(), expected);
    assert!(script.calls.borrow().iter().all(|(_, locked)| !locked));
}

#[test]
fn call_without_entropy_is_repeated_ten_times_with_the_same_registers() {
    const NO_ENTROPY: Answer = |regs| {
        // The module may change every register.
        *regs = SeamcallRegs {
            rax: TdxStatus::RND_NO_ENTROPY.0,
            rcx: 7,
            rdx: 7,
            r8: 7,
            ..SeamcallRegs::default()
        };
        Ok(())
    };
    let request = ShutdownRequest { hv: 1, avoid_compat_sensitive: false };
    let mut answers = vec![NO_ENTROPY; 9];
    answers.push(OK);
    let script = Script::of(&answers);
    TdxModule::new(&script).sys_shutdown(request).unwrap();
    assert_eq!(script.calls(), [regs(52, 1, 0); 10]);

    let script = Script::of(&[NO_ENTROPY; 10]);
    let error = TdxModule::new(&script).sys_shutdown(request).unwrap_err();
    assert_eq!(error, TdxError::Status(TdxStatus::RND_NO_ENTROPY));
    assert_eq!(script.calls().len(), 10);
}

#[test]
fn status_is_an_error_only_if_one_of_bits_63_to_61_is_set() {
    let script = Script::of(&[
        |regs| {
            (regs.rax, regs.rdx) =
                (TdxStatus::METADATA_FIRST_FIELD_ID_IN_CONTEXT.0, FieldId::MINOR_VERSION.0);
            Ok(())
        },
        |regs| {
            regs.rax = TdxStatus::NON_RECOVERABLE_TD.0;
            Ok(())
        },
    ]);
    let module = TdxModule::new(&script);
    let first = module.sys_rd(FieldId::NULL).unwrap();
    assert_eq!(
        (first.status, first.next),
        (TdxStatus::METADATA_FIRST_FIELD_ID_IN_CONTEXT, FieldId::MINOR_VERSION)
    );
    assert_eq!(
        module.sys_update(),
        Err(TdxError::Status(TdxStatus::NON_RECOVERABLE_TD)),
        "bit 63 is clear"
    );
}

#[test]
fn sys_init_and_sys_config_pass_attributes_and_the_dynamic_pamt() {
    const UP_TO: Answer = |regs| {
        (regs.rax, regs.rdx) = (0, 0x4020_0000);
        Ok(())
    };
    let script = Script::of(&[OK, OK, OK, UP_TO]);
    let module = TdxModule::new(&script);
    module.sys_init(0x8000_0000_0000_0001).unwrap();
    for dynamic_pamt in [false, true] {
        // SAFETY: the script touches no memory.
        unsafe { module.sys_config(PhysAddr(0x1200), 64, 0x7f, dynamic_pamt) }.unwrap();
    }
    // SAFETY: the script touches no memory.
    let reached = unsafe { module.sys_tdmr_init(PhysAddr(0x4000_0000)) };
    assert_eq!(reached, Ok(PhysAddr(0x4020_0000)));
    let expected = [
        regs(33, 0x8000_0000_0000_0001, 0),
        SeamcallRegs { r8: 0x7f, ..regs(45, 0x1200, 64) },
        SeamcallRegs { r8: 0x1_007f, ..regs(45, 0x1200, 64) },
        regs(36, 0x4000_0000, 0),
    ];
    assert_eq!(script.calls(), expected);
}

#[test]
fn sys_rd_returns_status_value_and_next_field() {
    const FIELD: Answer = |regs| {
        (regs.rax, regs.rdx, regs.r8) = (0, FieldId::MIN_UPDATE_HV.0, 0x8000_0000_0000_0003);
        Ok(())
    };
    const NO_FIELD: Answer = |regs| {
        (regs.rax, regs.rdx, regs.r8) = (TdxStatus::METADATA_FIELD_ID_INCORRECT.0, u64::MAX, 0);
        Ok(())
    };
    let script = Script::of(&[FIELD, NO_FIELD]);
    let module = TdxModule::new(&script);
    let field = module.sys_rd(FieldId::MODULE_HV).unwrap();
    assert_eq!((field.status, field.value), (TdxStatus::SUCCESS, 0x8000_0000_0000_0003));
    assert_eq!(field.next, FieldId::MIN_UPDATE_HV);
    let none = module.sys_rd(FieldId(1));
    assert_eq!(none, Err(TdxError::Status(TdxStatus::METADATA_FIELD_ID_INCORRECT)));
    assert_eq!(
        script.calls(),
        [regs(34, 0, FieldId::MODULE_HV.0), regs(34, 0, 1)],
        "RCX is reserved"
    );
}

#[test]
fn sys_disable_returns_the_status_that_asks_for_another_call() {
    let script = Script::of(&[
        |regs| {
            regs.rax = TdxStatus::INTERRUPTED_RESUMABLE.0;
            Ok(())
        },
        |regs| {
            regs.rax = TdxStatus::SYS_BUSY.0;
            Ok(())
        },
        OK,
    ]);
    let module = TdxModule::new(&script);
    assert_eq!(module.sys_disable(), Err(TdxError::Status(TdxStatus::INTERRUPTED_RESUMABLE)));
    assert_eq!(module.sys_disable(), Err(TdxError::Status(TdxStatus::SYS_BUSY)));
    assert_eq!(module.sys_disable(), Ok(()));
    assert_eq!(script.calls(), [regs(69, 0, 0); 3]);
}

#[test]
fn enable_lp_accepts_a_module_and_an_lp_that_are_initialised() {
    let state: &ModuleState = &ModuleState::<[_; 1]>::new();
    let script = Script::of(&[
        |regs| {
            regs.rax = TdxStatus::SYS_INIT_NOT_PENDING.0;
            Ok(())
        },
        |regs| {
            regs.rax = TdxStatus::SYS_LP_INIT_DONE.0;
            Ok(())
        },
    ]);
    let module = TdxModule::new(&script);
    assert_eq!(module.enable_lp(state, 5), Ok(true));
    assert_eq!(module.enable_lp(state, 5), Ok(true), "the second call makes no SEAMCALL");
    assert_eq!(script.calls(), [regs(33, 0, 0), regs(35, 0, 0)]);
}

#[test]
fn enable_lp_initialises_the_module_first_and_each_lp_once() {
    let state: &ModuleState = &ModuleState::<[_; 1]>::new();
    let script = Script::of(&[OK; 3]);
    let module = TdxModule::new(&script);
    for lp in [0, 1, 0, 1] {
        assert_eq!(module.enable_lp(state, lp), Ok(true));
    }
    assert_eq!(script.calls(), [regs(33, 0, 0), regs(35, 0, 0), regs(35, 0, 0)]);
}

#[test]
fn gather_fills_in_the_answers_of_p_seamldr_and_the_module() {
    const FIELD: Answer = |regs| {
        regs.rax = 0;
        regs.r8 = match FieldId(regs.rdx) {
            FieldId::TDX_FEATURES0 => 2,
            FieldId::MODULE_HV => 1,
            FieldId::MIN_UPDATE_HV | FieldId::NO_DOWNGRADE | FieldId::MAJOR_VERSION => 1,
            FieldId::MINOR_VERSION => 5,
            FieldId::NUM_HANDOFF_PAGES => 13,
            _ => 0,
        };
        Ok(())
    };
    // The module has the same version, and a handoff version whose size is unknown.
    const LATER: Answer = |regs| {
        FIELD(regs)?;
        if FieldId(regs.rdx) == FieldId::MODULE_HV {
            regs.r8 = 2;
        }
        Ok(())
    };
    const NO_HANDOFF_FIELD: Answer = |regs| {
        FIELD(regs)?;
        if FieldId(regs.rdx) == FieldId::MODULE_HV
            || FieldId(regs.rdx) == FieldId::NUM_HANDOFF_PAGES
        {
            regs.rax = TdxStatus::METADATA_FIELD_ID_INCORRECT.0;
        }
        Ok(())
    };
    const ZERO: Answer = |regs| {
        (regs.rax, regs.r8) = (0, 0);
        Ok(())
    };
    const NO_FIELD: Answer = |regs| {
        regs.rax = TdxStatus::METADATA_FIELD_ID_INCORRECT.0;
        Ok(())
    };
    let gather = |answers: &[Answer]| {
        let script = Script::of(answers);
        let (mut info, mut sysinfo) =
            (SeamldrInfoBuffer::zeroed(), Box::new(PSysInfoBuffer::zeroed()));
        let mut facts = Facts::new();
        let gathered = facts.gather(&seamldr(&script), &mut info, &mut sysinfo).map(|()| {
            let processor = (facts.debug_unlocked, facts.seamrr_base, facts.sensitive_operations);
            assert_eq!((facts.num_lps, processor), (Some(1), (None, None, None)));
            (facts.features0, facts.handoff, facts.handoff_data, facts.handoff_pages)
        });
        script.calls();
        gathered
    };
    let features = Some(TdxFeatures0::TD_PRESERVING);
    let known = |module_hv| Some(HandoffRange { module_hv, min_update_hv: 1, no_downgrade: true });
    assert_eq!(
        gather(&[OK, OK, FIELD, FIELD, FIELD, FIELD, FIELD, FIELD, FIELD, FIELD]),
        Ok((features, known(1), Some(53_391), Some(14)))
    );
    assert_eq!(
        gather(&[OK, OK, LATER, LATER, LATER, LATER, LATER]),
        Ok((features, known(2), None, Some(14)))
    );
    assert_eq!(
        gather(&[OK, OK, FIELD, NO_HANDOFF_FIELD, FIELD, FIELD, FIELD, NO_HANDOFF_FIELD]),
        Ok((features, None, Some(53_391), None))
    );
    let zero = HandoffRange { module_hv: 0, min_update_hv: 0, no_downgrade: false };
    assert_eq!(
        gather(&[OK, OK, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO]),
        Ok((Some(TdxFeatures0::empty()), Some(zero), None, Some(1)))
    );
    assert_eq!(
        gather(&[OK, OK, NO_FIELD, NO_FIELD, NO_FIELD, NO_FIELD]),
        Ok((None, None, None, None))
    );
    let refused = gather(&[|regs| {
        regs.rax = SeamldrStatus::EBADPARAM.0;
        Ok(())
    }]);
    assert_eq!(refused, Err(SeamldrError::Status(SeamldrStatus::EBADPARAM)));
}

#[test]
fn request_contains_every_page_and_its_error_names_the_unusable_page() {
    let file = small_file();
    let image = TdxImage::parse(&file.0).unwrap();
    let mut page = Box::new(Pages([0xff; 4 * PAGE_SIZE]));
    let params: &mut SeamldrParamsBuffer =
        zerocopy::FromBytes::mut_from_bytes(&mut page.0[..PAGE_SIZE]).unwrap();
    let address = |from: *const u8| physical(from).0;

    let request =
        InstallRequest::build(params, &image, Scenario::Update, &Script::default()).unwrap();
    assert_eq!(request.scenario(), Scenario::Update);
    let SeamldrParamsBuffer(params) =
        zerocopy::FromBytes::mut_from_bytes(&mut page.0[..PAGE_SIZE]).unwrap();
    assert_eq!(
        (params.version.get(), params.scenario.get(), params.num_module_pages.get()),
        (0, 1, 2)
    );
    assert_eq!(params.sigstruct_pa.get(), address((&raw const *image.sigstruct()).cast()));
    let pages = params.module_page_pa.map(zerocopy::little_endian::U64::get);
    let module = image.module();
    assert_eq!(pages[..2], [address(module.as_ptr()), address(module[PAGE_SIZE..].as_ptr())]);
    assert!(pages[2..].iter().all(|page| *page == 0));

    let sigstruct: *const u8 = (&raw const *image.sigstruct()).cast();
    let own_page: *const u8 = (&raw const *params).cast();
    let second = module[PAGE_SIZE..].as_ptr();
    for (from, part) in
        [(sigstruct, Part::Sigstruct), (second, Part::Module(1)), (own_page, Part::Params)]
    {
        let mut build = |answer| {
            let params: &mut SeamldrParamsBuffer =
                zerocopy::FromBytes::mut_from_bytes(&mut page.0[..PAGE_SIZE]).unwrap();
            let host = Script { strange: Some((from, answer)), ..Script::default() };
            InstallRequest::build(params, &image, Scenario::Load, &host).unwrap_err()
        };
        assert_eq!(build(None), BuildError::NotMapped(part));
        assert_eq!(build(Some(PhysAddr(0x1800))), BuildError::Misaligned(part, PhysAddr(0x1800)));
    }
}

#[test]
fn build_rejects_two_pages_of_sigstruct_and_info_rejects_an_unmapped_buffer() {
    let mut file = Box::new(Pages([0; 4 * PAGE_SIZE]));
    let parts = ImageParts { sigstruct: &[0; 2 * PAGE_SIZE], module: &[0; PAGE_SIZE] };
    parts.write(ImageFormat::BlobV1, &mut file.0).unwrap();
    let image = TdxImage::parse(&file.0).unwrap();
    let mut params = Box::new(SeamldrParamsBuffer::zeroed());
    let host = Script::default();
    let error = InstallRequest::build(&mut params, &image, Scenario::Update, &host).unwrap_err();
    assert_eq!(error, BuildError::SigstructTooLong(2));

    let mut info = SeamldrInfoBuffer::zeroed();
    let script = Script { strange: Some(((&raw const info).cast(), None)), ..Script::default() };
    assert_eq!(seamldr(&script).info(&mut info), Err(SeamldrError::NotMapped));
    assert_eq!(format!("{:?}", seamldr(&script)), "Seamldr { .. }");
    let copy = seamldr(&script);
    assert!(std::ptr::eq(copy.host(), &script));
}
