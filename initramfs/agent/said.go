package agent

import (
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/initramfs/board"
)

// tellAgain is after how long the appliance is told again what the screen says, though it says the same: it may be another one by now.
const tellAgain = 30 * time.Second

// news returns what the board says, where the appliance does not know that; else nil.
func (s *Screen) news(now time.Time) *job.Screen {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := screenOf(s.board)
	if said == s.told && now.Sub(s.toldAt) < tellAgain {
		return nil
	}
	return &said
}

// knows notes that the appliance was told; nil was no news.
func (s *Screen) knows(said *job.Screen, now time.Time) {
	if said == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told, s.toldAt = *said, now
}

// levels are how a machine stands, as the appliance is told.
var levels = map[board.Level]string{board.Working: "working", board.Waiting: "waiting", board.Done: "done", board.Failed: "failed"}

func screenOf(b board.Board) job.Screen {
	said := job.Screen{Level: levels[b.Level], Word: b.Word, Headline: b.Headline, Message: b.Message, Notice: b.Notice}
	for _, text := range []*string{&said.Word, &said.Headline, &said.Message, &said.Notice} {
		if len(*text) > job.MaxScreenText {
			*text = strings.ToValidUTF8((*text)[:job.MaxScreenText], "")
		}
	}
	return said
}

// ScreenOf returns what the screen of a machine says that reports so of its job, for machines that are simulated.
func ScreenOf(j job.Job, r job.Report) job.Screen {
	if r.State == job.Failed {
		return screenOf(failureBoard(j, &Failure{Code: r.Code, Sentence: r.Reason}, rebootTodo))
	}
	return screenOf(boardOf(j, r, 0))
}

// rebootTodo is what a person does before a machine whose job has failed, beside what its failure says.
const rebootTodo = "Then type \"reboot\" and Enter: the machine takes another job when it starts again."
