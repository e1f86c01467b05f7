//! Which memory an address selects, and which addresses firmware refuses.

use tdx_seamldr_core::abi::{Scenario, SeamldrStatus as S, PAGE_SIZE};
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::model::LoaderProfile;
use tdx_seamldr_mock::{PageBuf, SimPlatform};

use crate::support::*;
use crate::{model_call, without_module, ADDRESS_BITS, HOLE, OK, SEAMINFO, SEAMRR, SEAMRR_END};

#[test]
fn shared_key_ids_select_other_memory_and_private_ones_are_refused() {
    let file = newer().build();
    for keyid in 1u64..64 {
        let bits = keyid << ADDRESS_BITS;
        let is_shared = keyid < 0x20;
        let platform = boot(SimPlatform::builder().lps(1));
        assert_eq!(rax(&platform, 0, INFO, HOLE | bits) == Ok(0), is_shared, "KeyID {keyid:#x}");
        assert_eq!(rax(&platform, 0, SEAMINFO, (HOLE & !0x7ff) | bits) == Ok(0), is_shared);
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        let mut page = PageBuf::zeroed(1);
        let request = tdx_seamldr_core::InstallRequest::build(
            page.as_params(),
            &image,
            Scenario::Update,
            &platform.lp(0),
        )
        .unwrap();
        let params = request.params().get().0;
        let refused = |status| if is_shared { status } else { (S::EBADPARAM, 0) };
        // Zeros instead of parameters, of a SIGSTRUCT, and of the last page of the image.
        assert_eq!(
            install_on(&platform, 0, params | bits),
            refused((S::EBADSIG, 0)),
            "KeyID {keyid:#x}"
        );
        let sigstruct = page.as_params().0.sigstruct_pa;
        page.as_params().0.sigstruct_pa = (sigstruct.get() | bits).into();
        assert_eq!(install_on(&platform, 0, params), refused((S::EBADSIG, 0)));
        page.as_params().0.sigstruct_pa = sigstruct;
        let last = page.as_params().0.module_page_pa[7];
        page.as_params().0.module_page_pa[7] = (last.get() | bits).into();
        assert_eq!(install_on(&platform, 0, params), refused((S::EBADHASH, 1)));
    }
}

#[test]
fn every_address_in_the_seam_range_is_refused_with_every_key_id() {
    let mut model = without_module(1);
    let top = 1 << ADDRESS_BITS;
    let rows = [
        (0, true),
        (SEAMRR - 256, true),
        (SEAMRR, false),
        (SEAMRR + 0x0234_5600, false),
        (SEAMRR_END - 256, false),
        (SEAMRR_END, true),
        (top - 256, true),
    ];
    for (address, good) in rows {
        for keyid in 0u64..32 {
            let found = model_call(&mut model, 0, INFO, address | keyid << ADDRESS_BITS);
            let expected = if good { 0 } else { S::EBADPARAM.0 };
            assert_eq!(found, Ok(expected), "{address:#x} with KeyID {keyid}");
        }
    }
    for (leaf, alignment) in [(INFO, 256), (SEAMINFO, 2048)] {
        for bit in 0..64 {
            // The highest KeyID bit and all bits above are out of range. Low single bits break the
            // alignment.
            let good = 1u64 << bit >= alignment && bit < ADDRESS_BITS + 5 && 1 << bit != SEAMRR;
            let expected = if good { 0 } else { S::EBADPARAM.0 };
            assert_eq!(
                model_call(&mut model, 0, leaf, 1 << bit),
                Ok(expected),
                "{leaf:#x}, bit {bit}"
            );
        }
    }
}

#[test]
fn missing_memory_reads_as_zeros_and_ignores_writes() {
    let file = newer().build();
    let platform = boot(SimPlatform::builder().lps(1));
    let newer_platform = boot(SimPlatform::builder().lps(1).profile(LoaderProfile::NEWER));
    // Zeros are parameters of a LOAD of no pages, with a SIGSTRUCT of zeros.
    assert_eq!(install_on(&platform, 0, HOLE), (S::EBADSIG, 0));
    assert_eq!(install_on(&newer_platform, 0, HOLE), (S::EBADPARAM, 0));
    assert_eq!([INFO, SEAMINFO].map(|leaf| rax(&platform, 0, leaf, HOLE & !0x7ff)), [Ok(0); 2]);
    assert_eq!(platform.truth().tds_alive, 3, "no call has an effect");
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    with_params(&platform, &file, Scenario::Update, |params| {
        assert_eq!(install_on(&platform, 0, params), OK);
        let code = platform.with_model(|model| model.code()[..8 * PAGE_SIZE].to_vec());
        assert_ne!(code[7 * PAGE_SIZE..], [0; PAGE_SIZE], "the image is installed");
    });
}
