//! What holds in every order of threads. The models are in the library.

#[test]
fn a_closed_gate_is_passed_by_nobody() {
    weft_models::a_closed_gate_is_passed_by_nobody();
}

#[test]
fn a_gate_lets_in_as_many_as_fit() {
    weft_models::a_gate_lets_in_as_many_as_fit();
}

#[test]
fn a_budget_gives_each_retry_once() {
    weft_models::a_budget_gives_each_retry_once();
}

#[test]
fn no_sample_of_a_load_is_lost() {
    weft_models::no_sample_of_a_load_is_lost();
}

#[test]
fn one_incident_is_one_failure() {
    weft_models::one_incident_is_one_failure();
}

#[test]
fn what_failed_before_does_not_eject_who_is_well_again() {
    weft_models::what_failed_before_does_not_eject_who_is_well_again();
}

#[test]
fn a_pool_gives_out_what_there_is() {
    weft_models::a_pool_gives_out_what_there_is();
}

#[test]
fn no_word_of_room_is_missed() {
    weft_models::no_word_of_room_is_missed();
}
