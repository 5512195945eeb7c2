package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/job"
)

// waitEvery is how often jobs are looked at that are waited for.
const waitEvery = 500 * time.Millisecond

// waitShare bounds the share of the time in which it is looked: thousands of jobs keep the appliance busy that tells of them.
const waitShare = 5

// errInterrupted says that a person, or a program, ended the waiting.
var errInterrupted = errors.New("interrupted; the jobs go on, and `seedbed job ls` follows them")

// waitJobs shows how far jobs are until all of them have ended, and returns them. An appliance that is away for a while is waited
// for; where there is no job yet, the first one is too.
func waitJobs(ctx context.Context, c *client.Client, q api.JobQuery, out *os.File) ([]api.Job, error) {
	show := newBars(out)
	defer show.end()
	for {
		began := time.Now()
		list, err := c.Jobs(ctx, q)
		switch {
		case err == nil:
			if show.update(list); len(list) > 0 && !anyOpen(list) {
				return list, nil
			}
		case ctx.Err() != nil:
			return nil, errInterrupted
		case !errors.Is(err, client.ErrNotRunning):
			return nil, err
		default:
			show.line.say("the appliance does not answer")
		}
		select {
		case <-time.After(max(waitEvery, waitShare*time.Since(began))):
		case <-ctx.Done():
			return nil, errInterrupted
		}
	}
}

func anyOpen(list []api.Job) bool {
	for _, j := range list {
		if !j.State.Ended() {
			return true
		}
	}
	return false
}

// maxBars is how many jobs have a bar of their own; of more there is one for all.
const maxBars = 24

// bars show jobs: on a terminal each with a bar, elsewhere lines about all.
type bars struct {
	all   *mpb.Progress // nil elsewhere
	of    map[string]*mpb.Bar
	words sync.Map // what stands behind a bar, by job; the bars' goroutines read it
	line  *progress
}

// say sets what stands behind a job's bar.
func (b *bars) say(j api.Job) {
	text := string(j.State)
	switch {
	case j.State == job.Running:
		text = string(j.Phase)
	case j.Reason != "":
		text += ": " + j.Reason
	}
	b.words.Store(j.ID, plain(text))
}

func (b *bars) state(id string) func(decor.Statistics) string {
	return func(decor.Statistics) string {
		text, _ := b.words.Load(id)
		return fmt.Sprint("  ", text)
	}
}

func newBars(f *os.File) *bars {
	b := &bars{of: map[string]*mpb.Bar{}, line: newProgress(f)}
	if b.line.terminal {
		b.all = mpb.New(mpb.WithOutput(f), mpb.WithRefreshRate(200*time.Millisecond))
	}
	return b
}

func (b *bars) update(list []api.Job) {
	if b.all == nil || len(list) > maxBars {
		b.line.say("%s", tally(list))
		return
	}
	for _, j := range list {
		bar := b.of[j.ID]
		if bar == nil {
			bar = b.all.AddBar(100, mpb.BarWidth(30), mpb.PrependDecorators(decor.Name(plain(j.MachineName), decor.WCSyncSpaceR)),
				mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Any(b.state(j.ID), decor.WCSyncSpaceR)))
			b.of[j.ID] = bar
		}
		b.say(j)
		bar.SetCurrent(shareDone(j))
		if j.State.Ended() && !bar.Completed() && !bar.Aborted() {
			if j.State == job.Succeeded {
				bar.SetTotal(-1, true)
			} else {
				bar.Abort(false)
			}
		}
	}
}

// shareDone is how far a job is, from 0 to 100.
func shareDone(j api.Job) int64 {
	switch {
	case j.State == job.Succeeded:
		return 100
	case j.Total == 0:
		return 0
	case j.Kind == job.Capture, j.Kind == job.WipeDisk:
		return min(99, 100*j.Done/j.Total)
	}
	return min(99, (90*j.Held+10*j.Verified)/j.Total)
}

// tally says how far all jobs are: "3 of 30 done, 1 failed, 26 at work, 41 %".
func tally(list []api.Job) string {
	var done, failed, atWork int
	var total int64
	for _, j := range list {
		total += shareDone(j)
		switch {
		case j.State == job.Succeeded:
			done++
		case j.State.Ended():
			failed++
		case j.State == job.Running, j.State == job.Claimed:
			atWork++
		}
	}
	if len(list) == 0 {
		return "wait for the first machine"
	}
	return fmt.Sprintf("%3d %%: %d of %d done, %d at work, %d failed or cancelled", total/int64(len(list)), done, len(list), atWork, failed)
}

func (b *bars) end() {
	b.line.end()
	if b.all == nil {
		return
	}
	for _, bar := range b.of {
		if !bar.Completed() {
			bar.Abort(false)
		}
	}
	b.all.Wait()
}
