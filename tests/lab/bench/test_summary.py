from loralens.lab.bench.summary import Headline, headline, told


def point(variant, ratio, warnings=()):
    best = None if variant is None else {"variant": variant, "name": variant.upper(), "ratio": ratio}
    return {"recommendation": best, "warnings": list(warnings)}


def test_the_headline_names_the_usual_winner_and_the_range_of_all():
    points = [point("packed", 0.8), point("addmm", 1.1), point("packed", 0.9), point(None, None)]
    assert headline(points) == Headline(variant="packed", name="PACKED", low=0.8, high=1.1, points=2)


def test_nothing_recommended_is_no_headline():
    assert headline([point(None, None)]) is None
    assert headline([]) is None


def test_a_finished_run_is_told_by_its_result_alone():
    result = {"machine": {"name": "cpu"}, "points": [point("a", 1.0)], "skipped": [{}, {}], "warnings": ["noisy"]}
    found = told([("point", point("b", 2.0)), ("result", result)])
    assert (found["machine"], found["measured"], found["skipped"], found["doubtful"]) == ("cpu", 1, 2, True)
    assert found["headline"].variant == "a"


def test_a_run_that_was_stopped_is_told_by_what_it_had():
    started = {"machine": {"name": "gpu"}}
    found = told([("started", started), ("point", point("a", 1.5)), ("skipped", {})])
    assert (found["machine"], found["measured"], found["skipped"], found["doubtful"]) == ("gpu", 1, 1, False)
    assert told([])["machine"] is None and told([])["headline"] is None
