//! Descriptions of platforms with extreme numbers.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

mod support;

use support::{create, description, image, last_error, Sim, HOST, LPS};
use tdx_sim::TdxSimStatus::*;
use tdx_sim::*;

/// Returns copies of a description. In each copy, one of these numbers replaces one number.
fn with_numbers_replaced(
    value: &serde_json::Value,
    by: &[serde_json::Value],
) -> Vec<serde_json::Value> {
    use serde_json::Value;
    let is_number = |text: &str| text.starts_with("0x");
    match value {
        Value::Number(_) => by.to_vec(),
        Value::String(text) if is_number(text) => by.to_vec(),
        Value::Array(items) => {
            let changed = |index| {
                with_numbers_replaced(&items[index], by).into_iter().map(move |item| {
                    let mut items = items.clone();
                    items[index] = item;
                    Value::Array(items)
                })
            };
            (0..items.len()).flat_map(changed).collect()
        }
        Value::Object(fields) => {
            let changed = |(name, field): (&String, _)| {
                let name = name.clone();
                with_numbers_replaced(field, by).into_iter().map(move |field| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), field);
                    Value::Object(fields)
                })
            };
            fields.iter().flat_map(changed).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn extreme_numbers_give_a_platform_or_an_error_but_never_a_panic() {
    let limits =
        [0u64, 1, 31, 63, 64, 1023, 1024, 0xffff, u32::MAX.into(), i64::MAX as u64, u64::MAX];
    let limits = limits.map(serde_json::Value::from);
    let mut memory = support::update_memory(&image());
    let (mut made, mut refused) = (0, 0);
    for state in [Some("SYS_READY"), Some("SYSINIT_PENDING")] {
        let description = serde_json::from_str(&description(state)).unwrap();
        for changed in with_numbers_replaced(&description, &limits) {
            let (status, handle) = create(changed.to_string());
            if status != Ok {
                assert_eq!(status, BadDescription, "{changed}: {}", last_error());
                refused += 1;
                continue;
            }
            made += 1;
            let sim = Sim(handle);
            assert_eq!(sim.map(HOST, &mut memory), Ok);
            for (rax, rcx) in [
                (TDX_SIM_SEAMLDR_INFO, HOST),
                (TDX_SIM_SEAMLDR_SEAMINFO, HOST),
                (support::SYS_INIT, 0),
                (support::SYS_LP_INIT, 0),
                (support::SYS_SHUTDOWN, 0),
                (support::INSTALL, HOST),
                (support::SYS_INIT, 0),
                (support::SYS_LP_INIT, 0),
                (support::SYS_UPDATE, 0),
                (TDX_SIM_SEAMLDR_SHUTDOWN, 0),
            ] {
                for lp in 0..LPS {
                    let (status, ..) =
                        sim.try_call(lp, TdxSimRegs { rax, rcx, ..TdxSimRegs::default() });
                    assert_eq!(status, Ok, "{changed}: {rax:#x}");
                }
            }
            let _ = sim.truth();
        }
    }
    assert!(made > 100 && refused > 100, "{made} were made, {refused} refused");
}
