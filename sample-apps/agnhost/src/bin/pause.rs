//! The image `pause`: does nothing, for ever.

use std::time::Duration;

fn main() {
    loop {
        std::thread::sleep(Duration::from_secs(86_400));
    }
}
