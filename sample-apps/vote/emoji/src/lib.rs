//! The emoji service of the vote app: the list, and one by shortcode.
//!
//! | path | answers |
//! | --- | --- |
//! | `/api/list` | every emoji, as `[{"shortcode", "unicode"}]` |
//! | `/api/find?shortcode=:tada:` | that one, or 404 |
//! | `/healthz` | 200, for probes |

use serde::Serialize;
use weft::http::{json, query, status};
use weft::{Request, Response};

#[derive(Clone, Copy, Serialize)]
struct Emoji {
    shortcode: &'static str,
    unicode: &'static str,
}

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::http::Error> {
    match request.uri().path() {
        "/api/list" => json(EMOJI.as_slice()),
        "/api/find" => match query(request.uri(), "shortcode").and_then(|code| find(&code)) {
            Some(emoji) => json(&emoji),
            None => Ok(status(404)),
        },
        "/healthz" => Ok(status(200)),
        _ => Ok(status(404)),
    }
}

fn find(shortcode: &str) -> Option<Emoji> {
    EMOJI.into_iter().find(|emoji| emoji.shortcode == shortcode)
}

const fn emoji(shortcode: &'static str, unicode: &'static str) -> Emoji {
    Emoji { shortcode, unicode }
}

const EMOJI: [Emoji; 100] = [
    emoji(":100:", "💯"),
    emoji(":airplane:", "✈️"),
    emoji(":alien:", "👽"),
    emoji(":apple:", "🍎"),
    emoji(":art:", "🎨"),
    emoji(":avocado:", "🥑"),
    emoji(":bacon:", "🥓"),
    emoji(":balloon:", "🎈"),
    emoji(":banana:", "🍌"),
    emoji(":bee:", "🐝"),
    emoji(":bike:", "🚲"),
    emoji(":blue_heart:", "💙"),
    emoji(":bomb:", "💣"),
    emoji(":books:", "📚"),
    emoji(":bug:", "🐛"),
    emoji(":bulb:", "💡"),
    emoji(":burrito:", "🌯"),
    emoji(":cactus:", "🌵"),
    emoji(":cake:", "🍰"),
    emoji(":camping:", "🏕️"),
    emoji(":cat:", "🐱"),
    emoji(":champagne:", "🍾"),
    emoji(":cherries:", "🍒"),
    emoji(":chicken:", "🐔"),
    emoji(":clap:", "👏"),
    emoji(":clown:", "🤡"),
    emoji(":coffee:", "☕"),
    emoji(":cookie:", "🍪"),
    emoji(":corn:", "🌽"),
    emoji(":crab:", "🦀"),
    emoji(":crown:", "👑"),
    emoji(":crystal_ball:", "🔮"),
    emoji(":dancer:", "💃"),
    emoji(":dog:", "🐶"),
    emoji(":dolphin:", "🐬"),
    emoji(":doughnut:", "🍩"),
    emoji(":dragon:", "🐉"),
    emoji(":drum:", "🥁"),
    emoji(":earth_africa:", "🌍"),
    emoji(":eggplant:", "🍆"),
    emoji(":elephant:", "🐘"),
    emoji(":eyes:", "👀"),
    emoji(":fire:", "🔥"),
    emoji(":flamingo:", "🦩"),
    emoji(":fox:", "🦊"),
    emoji(":ghost:", "👻"),
    emoji(":gift:", "🎁"),
    emoji(":golf:", "⛳"),
    emoji(":grapes:", "🍇"),
    emoji(":guitar:", "🎸"),
    emoji(":hedgehog:", "🦔"),
    emoji(":hotdog:", "🌭"),
    emoji(":icecream:", "🍦"),
    emoji(":jack_o_lantern:", "🎃"),
    emoji(":joy:", "😂"),
    emoji(":key:", "🔑"),
    emoji(":kiwi:", "🥝"),
    emoji(":koala:", "🐨"),
    emoji(":lemon:", "🍋"),
    emoji(":lion:", "🦁"),
    emoji(":lobster:", "🦞"),
    emoji(":mage:", "🧙"),
    emoji(":mushroom:", "🍄"),
    emoji(":musical_note:", "🎵"),
    emoji(":ninja:", "🥷"),
    emoji(":octopus:", "🐙"),
    emoji(":ok_hand:", "👌"),
    emoji(":owl:", "🦉"),
    emoji(":panda:", "🐼"),
    emoji(":parrot:", "🦜"),
    emoji(":peach:", "🍑"),
    emoji(":penguin:", "🐧"),
    emoji(":pineapple:", "🍍"),
    emoji(":pizza:", "🍕"),
    emoji(":popcorn:", "🍿"),
    emoji(":pray:", "🙏"),
    emoji(":rainbow:", "🌈"),
    emoji(":ramen:", "🍜"),
    emoji(":robot:", "🤖"),
    emoji(":rocket:", "🚀"),
    emoji(":rose:", "🌹"),
    emoji(":sailboat:", "⛵"),
    emoji(":satellite:", "🛰️"),
    emoji(":shark:", "🦈"),
    emoji(":skier:", "⛷️"),
    emoji(":sloth:", "🦥"),
    emoji(":snowman:", "⛄"),
    emoji(":sparkles:", "✨"),
    emoji(":star:", "⭐"),
    emoji(":strawberry:", "🍓"),
    emoji(":sunflower:", "🌻"),
    emoji(":sunglasses:", "😎"),
    emoji(":taco:", "🌮"),
    emoji(":tada:", "🎉"),
    emoji(":tractor:", "🚜"),
    emoji(":turtle:", "🐢"),
    emoji(":unicorn:", "🦄"),
    emoji(":watermelon:", "🍉"),
    emoji(":whale:", "🐳"),
    emoji(":zap:", "⚡"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortcodes_are_sorted_and_unique() {
        assert!(
            EMOJI
                .windows(2)
                .all(|pair| pair[0].shortcode < pair[1].shortcode)
        );
    }

    #[test]
    fn one_is_found_and_others_are_not() {
        for (uri, expected) in [
            ("/api/find?shortcode=%3Atada%3A", 200),
            ("/api/find?shortcode=x", 404),
            ("/", 404),
        ] {
            let mut request = Request::new(weft::Body::empty());
            *request.uri_mut() = uri.parse().unwrap();
            assert_eq!(
                weft::block_on(handle(request)).unwrap().status(),
                expected,
                "{uri}"
            );
        }
    }
}
