package e2e

import (
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/initramfs/board"
	"seedbed/test-vm/lab"
)

// display adds a machine with a screen: VGA's text mode of 80 x 25 on BIOS, a framebuffer of 1280 x 800 on UEFI.
func (r *room) display(name string, f lab.Firmware, disks ...lab.Disk) *lab.Machine {
	r.t.Helper()
	m, err := r.Machine(r.t.Context(), lab.MachineConfig{Name: name, Firmware: f, Disks: disks, Display: true})
	must(r.t, err)
	return m
}

// screenLimit is how long a screen may take to show what the appliance knows: the agent draws five times in two seconds.
const screenLimit = 20 * time.Second

// shows waits until the machine's screen has texts in large letters of their colors, all at once.
func shows(t *testing.T, b *lab.Boot, want map[string]string) {
	t.Helper()
	ctx := within(t, screenLimit)
	for {
		p, err := b.Picture(ctx)
		must(t, err)
		missing := ""
		for text, color := range want {
			if got, _ := p.Find(board.Dots(text)); got != color {
				missing = text
			}
		}
		if missing == "" {
			t.Logf("%s: a screen of %d x %d cells shows %v", b.Name, p.Columns, p.Rows, want)
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the screen of %s does not show %q in %s; see its picture", b.Name, missing, want[missing])
		}
	}
}

// showsProgress holds the machine's name, bar and percentage against its job while it copies.
func showsProgress(t *testing.T, a *lab.Appliance, m *lab.Machine, b *lab.Boot) {
	t.Helper()
	j := waitJob(t, a, m, 4*time.Minute, heldShare(20))
	if j.Phase != job.PhaseContent {
		t.Fatalf("machine %s is in phase %s before its screen could be looked at", m.Config.Name, j.Phase)
	}
	shows(t, b, map[string]string{j.MachineName: lab.White})
	p, err := b.Picture(t.Context())
	must(t, err)
	color, share := p.Bar()
	after := waitJob(t, a, m, time.Minute, heldShare(0))
	least, most := float64(j.Held)/float64(j.Total), float64(after.Held)/float64(after.Total)
	if after.Phase != job.PhaseContent {
		most = 1
	}
	// A bar leaves a cell free at both sides; the appliance hears each second, the screen is drawn sooner.
	if color != lab.Green || share < least-0.05 || share > most+0.15 {
		t.Errorf("the bar of %s is %q and %.2f wide, the job was at %.2f before and at %.2f after", m.Config.Name, color, share, least, most)
	}
	t.Logf("%s: the bar is %.2f wide, the job was at %.2f before and at %.2f after", m.Config.Name, share, least, most)
}
