package bootdoctor

import (
	"fmt"
	"strings"
	"time"

	"seedbed/appliance/job"
)

// fetched reports whether the agent's kernel and initramfs were fetched whole in a boot in which no agent said hello.
func (v *view) fetched() bool {
	i := v.last(Initramfs)
	return !v.greeted() && v.has(Kernel) && i != nil && i.Whole()
}

// trouble returns what the agent said by the port of the boot files, or nil.
func (v *view) trouble(code string) *Step {
	if v.greeted() {
		return nil
	}
	return v.find(func(s *Step) bool { return s.Kind == Trouble && s.Problem == code })
}

// noDriver lists network controllers that no driver took.
func (v *view) noDriver() string {
	if v.Inventory == nil {
		return ""
	}
	var list []string
	for _, d := range v.Inventory.NoDriver {
		list = append(list, d.ID+" at "+d.Slot)
	}
	return strings.Join(list, ", ")
}

// kernelCases are those of a machine whose loader ran and whose agent did not say hello.
var kernelCases = []Case{
	{
		Name: "appliance-unreachable", Level: Stopped, Stopped: Hello,
		Wire:     "kernel and initramfs fetched, the agent asks for an address, and says at TCP 80 that nothing answers at TCP 443; no hello",
		Leaves:   inVariable + "; the agent tries on, and its screen says what it waits for",
		Sentence: "the agent of {name} runs and gets no answer of this appliance: {note}",
		Next:     "open TCP port 443 of this appliance to the machines: look at the firewall of this host and at filters between; the machine goes on by itself",
		match: func(v *view) map[string]string {
			s := v.trouble(job.TroubleUnreachable)
			if s == nil {
				return nil
			}
			return facts("note", sentence(s.Note))
		},
	},
	{
		Name: "wrong-certificate", Level: Stopped, Stopped: Hello,
		Wire:     "the agent says at TCP 80 that what answers at TCP 443 is not the site's appliance, or that its certificate is not good at this time; no hello",
		Leaves:   inVariable + "; the agent tries on, and its screen says why",
		Sentence: "the agent of {name} does not trust what answers it at TCP port 443: {note}",
		Next:     "set the clock of this appliance right (`seedbed doctor` compares clocks); then look for a proxy or another computer that answers at the appliance's address",
		Causes:   []string{"the clock of this appliance is wrong, so that its certificate is not good yet or any more", "another computer, or a proxy that opens TLS, answers at the appliance's address"},
		match: func(v *view) map[string]string {
			s := v.trouble(job.TroubleCertificate)
			if s == nil {
				return nil
			}
			return facts("note", sentence(s.Note))
		},
	},
	{
		Name: "boot-refused", Level: Stopped, Stopped: Hello,
		Wire:     "the agent says at TCP 80 that the appliance refuses its token: it is too old, was used, or a later boot replaced it",
		Leaves:   "nothing on the machine; the agent restarts it after a minute, and gets a new token",
		Sentence: "the appliance refused the boot of {name}: {note}",
		Next:     "the machine starts anew by itself; if it comes again, look for two machines with the same Ethernet address, and for a machine whose start takes more than 15 minutes",
		match: func(v *view) map[string]string {
			s := v.trouble(job.TroubleRefused)
			if s == nil {
				return nil
			}
			return facts("note", sentence(s.Note))
		},
	},
	{
		Name: "script-late", Level: Stopped, Stopped: Token,
		Wire:     "the boot token is asked for, and refused (403): the last DHCP packet is more than 120 s old, or came from another address",
		Leaves:   "nothing; the loader goes on to the machine's own disk",
		Sentence: "{name} came too late for its boot token: {note}",
		Next:     "start it again; if it comes again, its network is slow (kernel and initramfs are 25 MB), or two machines have the same Ethernet address",
		match: func(v *view) map[string]string {
			s := v.last(Token)
			if s == nil || s.Problem != ProblemRefused || v.greeted() {
				return nil
			}
			return facts("note", sentence(s.Note))
		},
	},
	{
		Name: "download-cut", Level: Stopped, Stopped: Kernel,
		Wire:     "HTTP of kernel or initramfs that ends before its end, and nothing for 30 s",
		Leaves:   "nothing; the loader goes on to the machine's own disk, or stays with an error on its screen",
		Sentence: "{name} got {bytes} of the {length} bytes of {file}, and then nothing more was fetched",
		Next:     "look at its cable and switch port; see that it has 1 GB of memory; then start it again",
		Causes:   []string{"the network between broke, or the machine was switched off", "the machine has too little memory for kernel and initramfs"},
		match: func(v *view) map[string]string {
			if v.greeted() || !v.still(ScriptPatience) {
				return nil
			}
			s := v.last(Initramfs, Kernel)
			if s == nil || s.Problem != ProblemCut || v.has(AgentDHCP) || v.has(Local) {
				return nil
			}
			return facts("file", or(s.File, string(s.Kind)), "bytes", fmt.Sprint(s.Bytes), "length", fmt.Sprint(s.Length))
		},
	},
	{
		Name: "agent-unreached", Level: Stopped, Stopped: Hello,
		Wire:     "kernel and initramfs fetched; the agent's kernel asks for an address (class \"seedbed-agent\"), so that its driver and the cable are right; no hello for 90 s",
		Leaves:   inVariable + " (no address, or no answer); the agent tries on, and its screen says what it waits for",
		Sentence: "the agent of {name} runs and asked for an address, and said nothing to this appliance since",
		Next:     "read its screen, which says what it waits for; see that the DHCP server has addresses free, and open TCP ports 80 and 443 of this appliance to the machines",
		Causes:   []string{"no DHCP server gives the agent an address", "this appliance cannot be reached from the machine by TCP"},
		match: func(v *view) map[string]string {
			if v.greeted() || !v.has(AgentDHCP) || !v.still(AgentPatience) && v.Now.Sub(v.last(AgentDHCP).At) < AgentPatience {
				return nil
			}
			return facts()
		},
	},
	{
		Name: "agent-silent-no-driver", Level: Stopped, Stopped: AgentDHCP,
		Wire:     "kernel and initramfs fetched; nothing of the agent for 90 s; an inventory of an earlier boot names network cards without a driver",
		Leaves:   inVariable + " (the card without a driver); the appliance keeps an inventory with the card's PCI IDs, told by another card",
		Sentence: "{name} fetched the agent, which says nothing: its kernel has no driver for the network card {cards}",
		Next:     "boot it by another network card or a USB adapter; a newer initramfs may have the driver",
		match: func(v *view) map[string]string {
			if !v.fetched() || v.noDriver() == "" || !v.still(AgentPatience) {
				return nil
			}
			return facts("cards", v.noDriver())
		},
	},
	{
		Name: "agent-silent", Level: Stopped, Stopped: AgentDHCP,
		Wire:     "kernel and initramfs fetched whole; no packet of the agent for 90 s",
		Leaves:   inVariable + " (no driver, no link, no address, no answer); nothing where the kernel did not start",
		Sentence: "{name} fetched kernel and initramfs, and its agent said nothing since",
		Next:     "read its screen: without a picture or with \"Kernel panic\" the kernel does not start (renew the firmware, add memory); \"no driver took\" names the card; \"no DHCP answer yet\" is the switch: set its port to edge (portfast)",
		Causes: []string{"the kernel does not start on this machine", "the agent's kernel has no driver for the network card", "the switch port does not forward yet (spanning tree) or lost the link",
			"this appliance cannot be reached from the machine any more"},
		match: func(v *view) map[string]string {
			if !v.fetched() || !v.still(AgentPatience) {
				return nil
			}
			return facts()
		},
	},
	{
		Name: "script-stopped", Level: Stopped, Stopped: Kernel,
		Wire:     "a loader runs and fetches its script, and then nothing for 30 s",
		Leaves:   "nothing; the loader goes on to the machine's own disk, and its screen shows the error",
		Sentence: "the loader {loader} of {name} fetched its script and nothing after it",
		Next:     "read its screen; open TCP port 80 of this appliance to the machines; then start it again",
		Causes:   []string{"the network between broke, or the machine was switched off", "the loader cannot load a kernel on this machine (memory, Secure Boot)"},
		match: func(v *view) map[string]string {
			s := v.last(Script)
			if s == nil || v.greeted() || v.has(Kernel, Local, NoDisk, AgentDHCP) || v.loader() != nil || !v.still(ScriptPatience) {
				return nil
			}
			return facts("loader", or(s.Loader, s.By))
		},
	},
}

// ownDiskCases are those of a machine that was sent to its own disk.
var ownDiskCases = []Case{
	{
		Name: "no-disk-starts", Level: Stopped, Stopped: Local,
		Wire:     "GRUB says that it finds no disk that starts (GET /grub/nodisk.cfg)",
		Leaves:   "nothing on the machine; the appliance answers its next DISCOVER not at all, and the firmware goes on by its own order",
		Sentence: "{name} was sent to its own disk, and GRUB found none that starts",
		Next:     "deploy an image, or start the machine again: its firmware tries its own boot order then",
		match: func(v *view) map[string]string {
			if v.greeted() || !v.has(NoDisk) {
				return nil
			}
			return facts()
		},
	},
	{
		Name: "own-disk-by-override", Level: Notice, Stopped: Local,
		Wire:     "script of the own disk; a person said that the machine boots it, though it has a job",
		Leaves:   "nothing; it is the same in each boot until that word is taken back",
		Sentence: "{name} boots its own disk because a person said so, though a job waits",
		Next:     "take that back with `seedbed machine edit --boot jobs` (or \"boot\" on the machine's page), and start it again",
		match: func(v *view) map[string]string {
			if v.Override != "local" || v.Work == nil || v.Work.State.Ended() || v.greeted() && !v.Hello.Before(v.b.Latest()) {
				return nil
			}
			return facts()
		},
	},
	{
		Name: "own-disk-loop", Level: Notice, Stopped: Local,
		Wire:     "script of the own disk in two boots that begin less than 3 minutes apart",
		Leaves:   "nothing but the new DISCOVER soon after it was sent to its disk",
		Sentence: "{name} was sent to its own disk and came back {after} later: its system may not start",
		Next:     "read its screen; verify or deploy its image again; if somebody restarted it, nothing is wrong",
		Causes:   []string{"the system on its disk does not start", "somebody restarted the machine"},
		match: func(v *view) map[string]string {
			last := &view{b: v.Last}
			s := last.last(Local)
			if s == nil || !v.has(Local) || v.greeted() || v.b.Began.Sub(s.Last) > loopWithin {
				return nil
			}
			return facts("after", seconds(v.b.Began.Sub(s.Last)))
		},
	},
	{
		Name: "own-disk", Level: Fine, Stopped: Local,
		Wire:     "script of the own disk; no job waits",
		Leaves:   "nothing",
		Sentence: "{name} boots its own disk: there is no job for it",
		match: func(v *view) map[string]string {
			if v.greeted() || !v.has(Local) {
				return nil
			}
			return facts()
		},
	},
}

// open reports whether the job has not ended.
func (w *Work) open() bool { return w != nil && !w.State.Ended() }

// restCases are what is left: machines that nobody saw, and those that go on.
var restCases = []Case{
	{
		Name: "not-seen", Level: Stopped, Stopped: DHCP,
		Wire:     "no packet at all, while a job waits for the machine",
		Leaves:   "nothing",
		Sentence: "no packet of {name} arrived here since this appliance started, and a job waits for it",
		Next:     "switch it on; put network boot (IPv4, PXE) first in its boot order and switch it on in the firmware; see that cable and VLAN are right, and that the router relays DHCP to this appliance if it is in another network",
		Causes:   []string{"the machine is off or does not boot from the network", "its packets do not reach this appliance (cable, VLAN, no DHCP relay)", "it boots through another appliance of the site"},
		match: func(v *view) map[string]string {
			if len(v.b.Steps) > 0 || !v.Hello.IsZero() || !v.Work.open() {
				return nil
			}
			return facts()
		},
	},
	{
		Name: "agent-lost", Level: Stopped, Stopped: Job,
		Wire:     "the agent said hello and took a job; nothing comes of it for 2 minutes",
		Leaves:   "what was written to its disk, which its next boot finds by its hashes and goes on with; the last lines of its screen are lost",
		Sentence: "nothing was heard of the agent of {name} for {silent}, in the middle of its job",
		Next:     "see that it is on and its cable plugged in, and read its screen; started again, it goes on where it was",
		Causes:   []string{"the machine was switched off or restarted, or its kernel stopped", "its network broke: cable, switch port, or a firewall that closed TCP port 443"},
		match: func(v *view) map[string]string {
			if !v.Work.open() || v.Work.State != job.Running && v.Work.State != job.Claimed || v.gone() == 0 {
				return nil
			}
			return facts("silent", seconds(v.gone().Truncate(time.Minute)))
		},
	},
	{
		Name: "agent-gone", Level: Fine, Stopped: Inventory,
		Wire:     "the agent said hello and has no job at work; nothing comes of it for 2 minutes, and no new boot",
		Leaves:   "nothing",
		Sentence: "{name} ran the agent last, and nothing was heard of it for {silent}: it is off, or runs its own system",
		match: func(v *view) map[string]string {
			if v.gone() == 0 {
				return nil
			}
			return facts("silent", seconds(v.gone().Truncate(time.Minute)))
		},
	},
	{
		Name: "working", Level: Fine, Stopped: Job,
		Wire:     "the agent said hello and is at work, or waits for its turn",
		Leaves:   "nothing",
		Sentence: "the agent of {name} is at work on its job ({state})",
		match: func(v *view) map[string]string {
			if !v.greeted() || !v.Work.open() || v.Work.State == job.Waiting {
				return nil
			}
			return facts("state", string(v.Work.State))
		},
	},
	{
		Name: "in-agent", Level: Fine, Stopped: Inventory,
		Wire:     "the agent said hello; it has no job to do now",
		Leaves:   "nothing",
		Sentence: "the agent of {name} runs and has nothing to do now",
		match: func(v *view) map[string]string {
			if !v.greeted() {
				return nil
			}
			return facts()
		},
	},
	{
		Name: "unknown", Level: Fine,
		Wire:     "no packet since the appliance started; nothing waits",
		Leaves:   "nothing",
		Sentence: "no boot of {name} was seen since this appliance started",
		match: func(v *view) map[string]string {
			if len(v.b.Steps) > 0 {
				return nil
			}
			return facts()
		},
	},
	{
		Name: caseOnTheWay, Level: Fine,
		Wire:     "each step came within its time",
		Leaves:   "nothing",
		Sentence: "{name} is on its way: {step}",
		match: func(v *view) map[string]string {
			return facts("step", v.b.Steps[len(v.b.Steps)-1].String())
		},
	},
}
