"""The picture of a merge: its points in the order of their weights, beside the runs."""

from multitune.reports.merging import plane
from multitune.results.merged import Merged, MergedPoint, MergedRun
from multitune.results.run import Sides


def merged(*scores: tuple[float, float, float | None]) -> Merged:
    """Points of (weight, seen, unseen), and one run."""
    points = [MergedPoint(weight, 50.0, {}, {}, Sides(seen, unseen), None) for weight, seen, unseen in scores]
    run = MergedRun("run", "mixed", 3, 50.0, Sides(90.0, 60.0))
    return Merged([run], "model", "accuracy", points, chosen=scores[0][0], precision="fp32", versions={})


def test_points_are_joined_by_weight_and_the_front_goes_through_the_best() -> None:
    picture = plane(merged((1.0, 90.0, 60.0), (0.8, 80.0, 65.0), (0.9, 88.0, 66.0)))
    assert picture is not None
    points, run = picture.series
    assert [(point.x, point.said) for point in points.points] == [(80.0, "0.8"), (88.0, "0.9"), (90.0, "1")]
    assert (points.joined, run.joined, run.method) == (True, False, "mixed")
    assert picture.front == ((88.0, 66.0), (90.0, 60.0))
    assert (picture.x_label, picture.y_label) == ("seen accuracy, %", "unseen accuracy, %")


def test_weights_of_points_that_coincide_are_written_once() -> None:
    picture = plane(merged((1.0, 90.0, 60.0), (0.9, 90.0, 60.0), (0.5, 80.0, 61.0)))
    assert picture is not None
    assert picture.names == ((80.0, 61.0, "0.5"), (90.0, 60.0, "0.9, 1"))


def test_without_unseen_scores_there_is_no_plane() -> None:
    assert plane(merged((1.0, 90.0, None))) is None
