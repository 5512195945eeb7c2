package e2e

import (
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/test-vm/lab"
)

// fault is what goes wrong before a kernel runs.
type fault struct {
	name     string
	firmware lab.Firmware
	lab      lab.Config
	block    []lab.Service
	want     string // case of the boot doctor
	words    []string
}

func TestTheBootDoctorSaysWhatStopsFirmware(t *testing.T) {
	for _, f := range []fault{
		{"loader", lab.BIOS, lab.Config{BootFile: lab.BootFile{Name: "snponly.efi"}}, nil, "wrong-loader", []string{"BIOS firmware", "snponly.efi", "another DHCP server"}},
		{"keys", lab.OtherKeys, lab.Config{}, nil, "secure-boot-or-broken", []string{"Secure Boot is on and refuses the loader", "firmware cannot run the loader"}},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			stage(t, f)
		})
	}
}

// stage has a machine meet a fault, and holds the boot doctor to what it has to say.
func stage(t *testing.T, f fault) {
	t.Helper()
	r := openRoom(t, "doctor-"+f.name, f.lab)
	a := r.serve()
	for _, s := range f.block {
		must(t, r.Block(t.Context(), s))
	}
	began := time.Now()
	m := r.machine(f.name, f.firmware)
	start(t, m, lab.StartOptions{})
	examine(t, a, m, f.want, f.words...)
	t.Logf("%s %v after power on", f.want, time.Since(began).Round(time.Second))
}

// verdictLimit is how long the doctor may take from power on to its verdict on a busy host: a boot up to the agent, and its patience.
const verdictLimit = 4 * time.Minute

// examine waits for a verdict, and holds it to words of its sentence, its causes and its next step; the command prints the same.
func examine(t *testing.T, a *lab.Appliance, m *lab.Machine, want string, words ...string) {
	t.Helper()
	last := &api.MachineBoot{}
	ctx := within(t, verdictLimit)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last.Verdict.Case != want {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("machine %s is %s after %v, not %s: %s\n%s", m.Config.Name, last.Verdict.Case, verdictLimit, want, last.Verdict.Sentence, course(last))
		}
		if b, err := a.Boot(ctx, m); err == nil { // an error is a machine that nobody saw yet
			last = b
		}
	}
	text := last.Verdict.Sentence + "; " + strings.Join(last.Verdict.Causes, "; ") + "; " + last.Verdict.Next
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("the verdict on %s does not name %q: %s", m.Config.Name, w, text)
		}
	}
	out, _ := a.Command(t.Context(), "doctor", m.MAC.String()) // its exit code says that something is wrong
	if !strings.Contains(string(out), last.Verdict.Sentence) {
		t.Errorf("seedbed doctor says\n%s\nwithout %q", out, last.Verdict.Sentence)
	}
}

// course is what was seen of a boot, a line for each step.
func course(b *api.MachineBoot) string {
	if b.Now == nil {
		return "nothing was seen of it"
	}
	var lines []string
	for _, s := range b.Now.Steps {
		lines = append(lines, strings.TrimSpace(time.Duration(s.After).Round(100*time.Millisecond).String()+" "+s.Text+" "+s.Problem))
	}
	return strings.Join(lines, "\n")
}
