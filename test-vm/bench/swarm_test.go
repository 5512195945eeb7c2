package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test's binary a child process of the bench where it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == actorArg {
		actorMain(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

func TestRoomOfProcessesSurvivesAPowerCut(t *testing.T) {
	c, err := makeNoise(t.Context(), shared(t), 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	const victim = 2
	plan := roomPlan(4)
	h := &heat{racer: racers[0], content: c, plan: plan, folder: shared(t), limit: time.Minute, watch: func(h *heat, station int, share float64) {
		if station == victim && share >= 0.5 && !h.processes[victim].killed {
			h.kill(victim)
		}
	}}
	s, err := h.run(t.Context()) // compares the disks
	if err != nil {
		t.Fatal(err)
	}
	for i, finish := range s.Finish {
		if done := finish > 0; done != (i != 0 && i != victim) {
			t.Errorf("station %d finished after %.2f s", i, finish)
		}
	}
	images := float64(s.Sent) / float64(c.Encoded)
	t.Logf("the appliance sent %.2f images; the last was done after %.2f s", images, slowest(s))
	if images < 1 || images > 1.6 {
		t.Errorf("the appliance sent %.2f images", images)
	}
	if left := namespaces(t); len(left) > 0 {
		t.Errorf("namespaces are left: %v", left)
	}
}

func slowest(s *score) float64 {
	last, _ := s.last(everyone)
	return last
}

// shared is a folder in memory, removed at the end.
func shared(t *testing.T) string {
	folder, err := os.MkdirTemp("/dev/shm", fmt.Sprintf("seedbed-swarmbench-%d-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// namespaces are those of this process.
func namespaces(t *testing.T) (list []string) {
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), networkName()) {
			list = append(list, e.Name())
		}
	}
	return list
}
