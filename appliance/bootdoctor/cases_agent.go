package bootdoctor

import (
	"fmt"
	"strings"

	"seedbed/appliance/job"
)

// codeFacts returns the words of a job that failed or waits by one of the codes, or nil.
func (v *view) codeFacts(codes ...string) map[string]string {
	w := v.failed(codes...)
	if w == nil {
		return nil
	}
	return facts("reason", sentence(w.Reason), "job", w.ID)
}

// hidden are the facts of a controller that hides disks from a machine that shows none; nil if there is none.
func (v *view) hidden() map[string]string {
	c := v.hiding()
	if c == nil || v.fixed() > 0 && c.Hidden == 0 || v.fixed() > 0 && v.failed("no-disk", "too-small") == nil {
		return nil
	}
	what := hidesAll
	if c.Hidden > 0 {
		what = fmt.Sprintf("it hides %d NVMe disks", c.Hidden)
	}
	mode := map[string]string{job.ModeVMD: "Intel VMD", job.ModeRAID: "RAID (Intel RST)"}[c.Mode]
	return facts("id", c.ID, "slot", c.Slot, "mode", or(mode, "RAID"), "what", what)
}

// swarmSilent returns why a machine at work gets no byte, or nil.
func (v *view) swarmSilent() map[string]string {
	w := v.Work
	if w == nil || w.State != job.Running || !w.Kind.Swarms() || !v.next.IsZero() || w.Peers > 0 {
		return nil
	}
	for _, s := range w.Warnings {
		if strings.HasPrefix(s, job.WarnNoSwarm) {
			return facts("note", sentence(s))
		}
	}
	return nil
}

// agentCases are those of a machine whose agent runs.
var agentCases = []Case{
	{
		Name: "not-admitted", Level: Notice, Stopped: Inventory,
		Wire:     "hello and inventory of a machine that nobody admitted",
		Leaves:   "nothing on the machine; the appliance keeps its inventory and its code",
		Sentence: "{name} is new here and waits to be admitted; its screen shows the code {code}",
		Next:     "compare the code on its screen and admit it: `seedbed machine admit {code}`",
		match: func(v *view) map[string]string {
			if !v.greeted() || v.Admitted || !v.next.IsZero() || v.Told.IsZero() {
				return nil
			}
			return facts("code", or(v.Code, "?"))
		},
	},
	{
		Name: "swarm-blocked", Level: Stopped, Stopped: Job,
		Wire:     "hello and reports come at TCP 443; the job is in its transfer, with no peer and no byte; the agent says that it gets no connection to TCP 6881",
		Leaves:   "nothing on the machine; the appliance keeps the report with the warning",
		Sentence: "{name} reports, but gets nothing of its image: {note}",
		Next:     "open TCP port 6881 of this appliance, and among the machines, in firewalls and switches (client isolation off); the machine goes on by itself",
		match:    func(v *view) map[string]string { return v.swarmSilent() },
	},
	{
		Name: "raid-mode", Level: Stopped, Stopped: Job,
		Wire:     "an inventory with a storage controller in RAID mode (PCI class 0104: Intel RST or VMD) and no disk, or NVMe disks that the controller hides",
		Leaves:   "nothing on the machine; the appliance keeps the inventory, and a paused job with the code no-disk",
		Sentence: "the storage controller {id} at {slot} of {name} is in {mode} mode, and {what}",
		Next: "in its firmware set the storage controller to AHCI (\"SATA mode\" or \"SATA operation\": from RAID to AHCI) and switch \"VMD controller\" or \"Intel RST Premium\" off; " +
			"a Windows that was installed in RAID mode needs its AHCI driver first",
		match: func(v *view) map[string]string {
			if v.Inventory == nil || !v.next.IsZero() || !v.greeted() && len(v.b.Steps) > 0 {
				return nil
			}
			return v.hidden()
		},
	},
	{
		Name: "no-disk", Level: Stopped, Stopped: Job,
		Wire:     "an inventory without a fixed disk; a paused job with the code no-disk",
		Leaves:   "nothing on the machine; the appliance keeps the inventory, and the job goes on when there is a disk",
		Sentence: "{name} shows no disk that can be written: {reason}",
		Next:     "put a disk in, or see that it is plugged in and switched on in the firmware; a USB disk is never written. The job goes on by itself",
		Causes:   []string{"there is no disk, or its cable is loose, or it is broken", "the disk is switched off in the firmware, or its controller has no driver in the agent's kernel"},
		match: func(v *view) map[string]string {
			if f := v.codeFacts("no-disk"); f != nil {
				return f
			}
			if v.Inventory == nil || v.fixed() > 0 || !v.greeted() || !v.next.IsZero() {
				return nil
			}
			return facts("reason", whyNoneToldOf)
		},
	},
	{
		Name: "too-small", Level: Stopped, Stopped: Job,
		Wire:     "a paused job with the code too-small; the inventory has the disk's length",
		Leaves:   "nothing on the machine; the appliance keeps the inventory, and the job goes on when there is a larger disk",
		Sentence: "the disk of {name} is too small: {reason}",
		Next:     "put in a larger disk, after which the job goes on by itself, or deploy an image of a smaller disk",
		match:    func(v *view) map[string]string { return v.codeFacts("too-small") },
	},
	{
		Name: "ambiguous-disk", Level: Stopped, Stopped: Job,
		Wire:     "a failed job with the code ambiguous-disk; the inventory has the disks",
		Leaves:   "nothing on the machine; the appliance keeps the inventory",
		Sentence: "{name} has several disks, and nobody said which one is to be written: {reason}",
		Next:     "deploy again and name the disk's serial number (`seedbed deploy --disk`), or take the other disks out",
		match:    func(v *view) map[string]string { return v.codeFacts("ambiguous-disk") },
	},
	{
		Name: "sector-size", Level: Stopped, Stopped: Job,
		Wire:     "a paused job with the code sector-size; the inventory has the disk's sectors",
		Leaves:   "nothing on the machine; the appliance keeps the inventory",
		Sentence: "the disk of {name} has sectors of another length than the image: {reason}",
		Next:     "put in a disk with such sectors, or deploy an image of a disk of this kind",
		match:    func(v *view) map[string]string { return v.codeFacts("sector-size") },
	},
	{
		Name: "job-failed", Level: Stopped, Stopped: Job,
		Wire:     "hello and inventory; a job that failed, or is paused, with another code",
		Leaves:   "nothing on the machine; the appliance keeps the last lines of its screen with the job",
		Sentence: "job {job} of {name} does not go on ({code}): {reason}",
		Next:     "do what the sentence says; `seedbed job show {job}` has the last lines of its screen, `seedbed job retry {job}` tries again",
		match: func(v *view) map[string]string {
			w := v.Work
			if w == nil || w.Code == "" || w.State != job.Failed && w.State != job.Paused || v.failed(w.Code) == nil || w.Code == "operator" {
				return nil
			}
			return facts("job", w.ID, "code", w.Code, "reason", sentence(w.Reason))
		},
	},
	{
		Name: "nic-without-driver", Level: Notice, Stopped: Inventory,
		Wire:     "hello by one network card, and an inventory that names another one (PCI class 02) without a driver",
		Leaves:   "nothing on the machine; the appliance keeps the inventory with the card's PCI IDs",
		Sentence: "the agent's kernel has no driver for the network card {cards} of {name}; it works by another one",
		Next:     "nothing, if the other card is fast; else a newer initramfs may have the driver",
		match: func(v *view) map[string]string {
			if !v.greeted() || v.noDriver() == "" || v.Work.open() {
				return nil
			}
			return facts("cards", v.noDriver())
		},
	},
}
