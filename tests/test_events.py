"""Callbacks hear everything, and stop a run at its next step."""

import numpy as np
import pytest
import torch

from rldistill.errors import UsageError
from rldistill.events import MessageEvent, ProgressEvent, StopRequestedError, check_callbacks, notify, tell

PROGRESS = ProgressEvent("collect", 3, 10, "steps", {"steps_per_second": 5.0})


def test_every_callback_hears_every_event_also_after_one_that_stops():
    heard = []
    with pytest.raises(StopRequestedError):
        notify([lambda event: heard.append(event) or True, heard.append], PROGRESS)
    assert heard == [PROGRESS, PROGRESS]


@pytest.mark.parametrize("number", [np.float64, torch.tensor])
def test_the_truth_of_a_comparison_with_numbers_of_numpy_or_pytorch_stops_too(number):
    with pytest.raises(StopRequestedError):
        notify([lambda event: number(event.metrics["steps_per_second"]) < 6], PROGRESS)


@pytest.mark.parametrize("answer", [None, False, np.bool_(False), 1, "stop", np.float32(1), np.array([True, True])])
def test_only_true_asks_to_stop(answer):
    heard = []
    notify([lambda event: answer if heard.append(event) is None else None, heard.append], PROGRESS)
    assert heard == [PROGRESS, PROGRESS]


def test_a_message_is_only_told_the_last_one_of_a_run_that_stops_among_them():
    heard = []
    tell([lambda event: heard.append(event) or True], "stopped; 5 steps are written")
    tell([heard.append], "nothing was learned", "warning")
    assert heard == [MessageEvent("stopped; 5 steps are written"), MessageEvent("nothing was learned", "warning")]


def test_a_class_in_place_of_a_callback_is_told_so():
    class Told:
        def __call__(self, event):
            return None

    check_callbacks([Told()])
    with pytest.raises(UsageError) as caught:
        check_callbacks([Told])
    assert str(caught.value) == "callbacks: got the class Told, expected one of it: callbacks=[Told()]."
