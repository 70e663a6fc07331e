//! A plug-in of the shop in `runtime/examples/plugins.rs`: a tenth off, for whoever takes what there is plenty of.

wit_bindgen::generate!({ path: "../../runtime/examples/plugins.wit" });

use exports::shop::plugins::discounts::{Guest, Line};
use shop::plugins::stock::in_stock;

/// Below this, an item sells without help.
const PLENTY: u32 = 100;

struct Discount;

impl Guest for Discount {
    fn discount(basket: Vec<Line>) -> Result<u32, String> {
        let mut cents = 0;
        for line in basket {
            let left = in_stock(&line.item);
            if left < PLENTY {
                return Err(format!("only {left} are left"));
            }
            cents += line.count * line.cents / 10;
        }
        Ok(cents)
    }
}

export!(Discount);
