//! How a text is cut into words.

/// Characters of a word that count; what is longer is data, and known by its beginning.
const LONGEST_WORD: usize = 64;

/// Reads the words of a text, in lower case and without accents. A word ends at whatever is no letter and no digit. Where
/// people write without spaces, and of signs like emoji, each character is a word.
pub fn read_words(text: &str, mut read: impl FnMut(&str)) {
    let (mut word, mut length) = (String::new(), 0);
    let mut end = |word: &mut String, length: &mut usize| {
        if !word.is_empty() {
            read(word);
        }
        word.clear();
        *length = 0;
    };
    for c in text.chars() {
        if stands_alone(c) {
            end(&mut word, &mut length);
            word.push(c);
            end(&mut word, &mut length);
        } else if c.is_alphanumeric() {
            length += 1;
            if length <= LONGEST_WORD {
                fold(c, &mut word);
            }
        } else if !is_accent(c) {
            end(&mut word, &mut length);
        }
    }
    end(&mut word, &mut length);
}

fn fold(c: char, word: &mut String) {
    if c.is_ascii() {
        return word.push(c.to_ascii_lowercase());
    }
    // Of some capital letters the small one comes in two parts.
    word.extend(c.to_lowercase().filter(|c| !is_accent(*c)).map(without_accent));
}

/// Accents that are written as characters of their own.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

fn without_accent(c: char) -> char {
    match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' | 'ǎ' => 'a',
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => 'c',
        'ď' | 'đ' => 'd',
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => 'e',
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => 'g',
        'ĥ' | 'ħ' => 'h',
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => 'i',
        'ĵ' => 'j',
        'ķ' => 'k',
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => 'l',
        'ñ' | 'ń' | 'ņ' | 'ň' => 'n',
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' | 'ơ' => 'o',
        'ŕ' | 'ŗ' | 'ř' => 'r',
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => 's',
        'ţ' | 'ť' | 'ŧ' | 'ț' => 't',
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' | 'ư' => 'u',
        'ŵ' => 'w',
        'ý' | 'ÿ' | 'ŷ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        other => other,
    }
}

/// Whether a character is a word by itself: scripts without spaces between words, and signs that say something.
fn stands_alone(c: char) -> bool {
    let sign = matches!(c, '\u{2300}'..='\u{23ff}' | '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}');
    let script = matches!(c,
        // Thai and Lao, Burmese, Khmer; kana; Chinese characters.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{3ffff}');
    sign || (script && c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        read_words(text, |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn a_text_is_cut_where_there_is_no_letter_and_no_digit() {
        assert_eq!(words("Acme/app_v2: #42, payment.failed\0x"), ["acme", "app", "v2", "42", "payment", "failed", "x"]);
        assert_eq!(words("ÉCOLE e\u{301}cole İstanbul Łódź"), ["ecole", "ecole", "istanbul", "lodz"]);
        assert_eq!(words("…!? \u{7f}"), Vec::<String>::new());
    }

    #[test]
    fn what_is_written_without_spaces_is_cut_at_each_character() {
        assert_eq!(words("バグfix🚀"), ["バ", "グ", "fix", "🚀"]);
        assert_eq!(words("한국어 привет"), ["한국어", "привет"]);
    }

    #[test]
    fn of_a_long_word_the_beginning_counts() {
        assert_eq!(words(&"x".repeat(1000)), ["x".repeat(LONGEST_WORD)]);
    }
}
