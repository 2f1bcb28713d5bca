use super::*;

#[test]
fn a_validation_problem_names_the_first_fault_and_lists_all() {
    let mut faults = Faults::default();
    faults.add("$.name", "is required");
    faults.add("$.url", "must be https");
    let document = serde_json::to_value(Problem::from(faults).document()).unwrap();
    assert_eq!(
        document,
        json!({
            "type": "urn:esito:problem:validation", "title": "The request is not valid", "status": 400,
            "detail": "$.name: is required",
            "report": {"additionalContext": {"faults": [
                {"path": "$.name", "message": "is required"}, {"path": "$.url", "message": "must be https"}]}}
        })
    );
}

#[test]
fn what_may_be_tried_again_says_when() {
    for problem in
        [Problem::Unavailable, Problem::TooMuchWaiting { waiting: 9 }, Problem::RateLimited { retry_after: 3 }]
    {
        let response = problem.into_response();
        assert!(response.headers().contains_key(header::RETRY_AFTER), "{response:?}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    }
}

#[test]
fn the_store_s_own_words_about_trouble_stay_inside() {
    for error in [StoreError::Unavailable("/var/x.db".into()), StoreError::Corrupt("row 7".into())] {
        let document = serde_json::to_string(&Problem::from(error).document()).unwrap();
        assert!(!document.contains("x.db") && !document.contains("row 7"), "{document}");
    }
}
