//! What holds for any text from outside: nothing panics, and what was read and written is read the same again.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use weft_api::time::{WireTime, parse_duration};
use weft_api::{FieldSelector, ImageReference, LabelSelector, Quantity, SpiffeId, name};

/// Enough to meet each branch of these readers some hundred times, in a second.
const CASES: u32 = 4000;

fn config() -> ProptestConfig {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// Any text, and text of the letters that the grammar is made of.
fn text(like: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![1 => any::<String>(), 4 => like]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_quantity_equals_its_canonical_text(
        text in text("[+-]?[0-9]{0,22}(\\.[0-9]{0,40})?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3}|[a-zA-Z]{0,3})?")
    ) {
        if let Ok(quantity) = Quantity::parse(&text) {
            let canonical = Quantity::canonical(&text).unwrap().into_owned();
            prop_assert_eq!(Quantity::parse(&canonical).unwrap(), quantity);
            prop_assert_eq!(Quantity::canonical(&canonical).unwrap(), canonical.as_str());
            let shown = quantity.to_string();
            prop_assert_eq!(Quantity::parse(&shown).unwrap(), quantity);
            prop_assert_eq!(Quantity::parse(&shown).unwrap().to_string(), shown);
            // Rounding is up, and never by more than one.
            let (milli, value) = (quantity.milli(), quantity.value());
            prop_assert!(value * 1000 >= milli && (value - 1) * 1000 < milli, "{} {}", milli, value);
        } else {
            prop_assert!(Quantity::canonical(&text).is_err());
        }
    }

    #[test]
    fn quantities_add_and_subtract_without_a_panic(a in any::<i128>(), b in any::<i128>()) {
        let (a, b) = (Quantity::from_milli(a), Quantity::from_value(b));
        let _ = ((a + b).to_string(), (a - b).to_string());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    }

    #[test]
    fn a_label_selector_is_read_again_from_its_text(
        text in text("[ab!=(),<> \t]{0,12}|(a|b|!?a|x in \\((a|,|b){0,4}\\)|x notin \\(a\\)|x[<>=!]=?[0-9]{1,3})(,(a|!b|c=d|x>1)){0,3}")
    ) {
        if let Ok(selector) = LabelSelector::parse(&text) {
            let shown = selector.to_string();
            prop_assert_eq!(LabelSelector::parse(&shown), Ok(selector));
        }
    }

    #[test]
    fn a_field_selector_keeps_any_value(
        field in "[a-z.]{1,8}", value in any::<String>(), other in text("[a=!,\\\\]{0,12}")
    ) {
        let escaped = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let selector = FieldSelector::parse(&format!("{field}={escaped}")).unwrap();
        prop_assert_eq!(selector.exact(&field), Some(value.as_str()));
        let _ = FieldSelector::parse(&other);
    }

    #[test]
    fn a_selector_of_an_object_never_panics(
        key in any::<String>(), operator in "In|NotIn|Exists|DoesNotExist|.{0,4}", values in proptest::collection::vec(any::<String>(), 0..3)
    ) {
        let selector = serde_json::json!({
            "matchLabels": {key.clone(): values.first()},
            "matchExpressions": [{"key": key, "operator": operator, "values": values}],
        });
        let causes = LabelSelector::causes(&selector, "spec.selector");
        prop_assert_eq!(LabelSelector::from_object(&selector).is_ok(), causes.is_empty());
    }

    #[test]
    fn a_time_is_read_again_from_its_text(
        seconds in -62_135_596_800_i64..253_402_300_800, micros in 0..1_000_000_u32,
        text in text("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{1,2}:[0-9]{2}:[0-9]{2}([.,][0-9]{0,10})?(Z|[+-][0-9]{2}:[0-9]{2})?")
    ) {
        let time = WireTime { seconds, nanos: micros * 1000 };
        prop_assert!(time.is_in_range());
        prop_assert_eq!(WireTime::parse_micro(&time.rfc3339_micros()), Ok(time));
        prop_assert_eq!(WireTime::parse(&time.rfc3339()), Ok(WireTime { seconds, nanos: 0 }));
        // The calendar is that of everybody else, as far as it reaches.
        if let Ok(stamp) = jiff::Timestamp::from_second(seconds) {
            prop_assert_eq!(time.rfc3339(), weft_api::time::rfc3339(stamp));
        }
        for read in [WireTime::parse(&text), WireTime::parse_micro(&text)] {
            if let Ok(time) = read && time.is_in_range() {
                prop_assert_eq!(WireTime::parse_micro(&time.rfc3339_micros()).unwrap().seconds, time.seconds);
            }
        }
    }

    #[test]
    fn an_image_is_read_again_from_its_text(
        text in text("([a-z.]{1,6}(:[0-9]{1,6})?/)?[a-z/_.-]{0,10}(:[a-zA-Z0-9_.-]{0,5})?(@sha256:[0-9a-f]{64})?|file:/?/?[a-z/]{0,5}")
    ) {
        if let Ok(image) = text.parse::<ImageReference>() {
            let shown = image.to_string();
            let again: ImageReference = shown.parse().unwrap();
            prop_assert_eq!(again.to_string(), shown);
            prop_assert_eq!(again.is_latest(), image.is_latest());
        }
    }

    #[test]
    fn an_identity_is_read_again_from_its_text(text in text("spiffe://[a-z./]{0,8}/ns/[a-z/-]{0,4}/sa/[a-z/-]{0,4}")) {
        if let Ok(identity) = text.parse::<SpiffeId>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn names_and_durations_never_panic(text in text("[a-zA-Z0-9./_-]{0,70}|[0-9]{0,20}(ms|s|m|h)")) {
        let _ = parse_duration(&text);
        type Rule = (fn(&str) -> Result<(), String>, fn(&str) -> Vec<String>);
        let rules: [Rule; 6] = [
            (name::dns1123_label, name::dns1123_label_faults),
            (name::dns1123_subdomain, name::dns1123_subdomain_faults),
            (name::qualified_name, name::qualified_name_faults),
            (name::label_value, name::label_value_faults),
            (name::config_key, name::config_key_faults),
            (name::port_name, name::port_name_faults),
        ];
        for (rule, faults) in rules {
            prop_assert_eq!(rule(&text).err(), faults(&text).into_iter().next());
        }
    }
}
