//! The passwords that are tried first.

use std::collections::HashSet;
use std::sync::LazyLock;

/// One a line; lines that begin with `#` say where they are from.
const LIST: &str = include_str!("common.txt");

static COMMON: LazyLock<HashSet<&str>> =
    LazyLock::new(|| LIST.lines().filter(|line| !line.starts_with('#')).collect());

/// Whether so many people have this password that it is as good as none. `lower_case` is the password in lower case.
pub(super) fn is_common(lower_case: &str) -> bool {
    COMMON.contains(lower_case)
}

#[cfg(test)]
mod tests {
    use unicode_normalization::is_nfkc;

    use super::super::policy::SHORTEST;
    use super::*;

    #[test]
    fn the_list_holds_ten_thousand_in_the_form_in_which_they_are_looked_up() {
        assert_eq!(COMMON.len(), 10_000);
        for password in COMMON.iter() {
            let good = password.chars().count() >= SHORTEST
                && is_nfkc(password)
                && password.to_lowercase() == *password
                && password.trim() == *password;
            assert!(good, "{password}");
        }
        assert!(is_common("password1") && is_common("1qaz2wsx") && !is_common("correct horse battery"));
    }
}
