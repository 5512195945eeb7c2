package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vbauerster/mpb/v8"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func TestBarsOfARoomEndWithItsJobs(t *testing.T) {
	var out bytes.Buffer
	b := &bars{of: map[string]*mpb.Bar{}, line: &progress{w: &out}, all: mpb.New(mpb.WithOutput(&out), mpb.WithAutoRefresh(), mpb.WithWidth(120))}
	view := func(id string, state job.State, held int64) api.Job {
		return api.Job{JobView: fleet.JobView{ID: id, MachineName: "pc-" + id, Kind: job.Deploy, State: state, Phase: job.PhaseContent, Total: 100, Held: held, Reason: "the disk is too small"}}
	}
	b.update([]api.Job{view("1", job.Waiting, 0), view("2", job.Running, 50)})
	b.update([]api.Job{view("1", job.Failed, 0), view("2", job.Succeeded, 100), view("3", job.Cancelled, 7)})
	b.end() // waits for all bars, those of jobs that did not succeed too
	for _, want := range []string{"pc-1", "pc-2", "failed: the disk is too small", "succeeded"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not shown: %q", want, out.String())
		}
	}
	if got := tally([]api.Job{view("1", job.Succeeded, 100), view("2", job.Running, 50), view("3", job.Failed, 0)}); got != " 48 %: 1 of 3 done, 1 at work, 1 failed or cancelled" {
		t.Errorf("%q", got)
	}
}
