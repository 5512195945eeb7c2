package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"seedbed/appliance/client"
	"seedbed/appliance/doctor"
)

const (
	// checkPatience bounds a question to the appliance, the records or the storage, lookPatience a check with all its questions:
	// one that is silent even then is held by the kernel, as by a network file system whose server is gone.
	checkPatience = 8 * time.Second
	lookPatience  = 20 * time.Second
)

func doctorCommand(o *options, serve *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor [MACHINE]", Short: "Say what is wrong with the appliance of this host, or with the boot of a machine, and what to do", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completes(1, machineNames),
		Annotations:       map[string]string{withoutConfig: "yes"}, // one that cannot be read is a finding
		Long: `Doctor looks at an appliance that does not do what it should, from outside and inside: configuration, service, ports, network,
boot files, room, repository, records, clocks, certificates, secrets, schedule, queue and machines. It prints a line for each check
and changes nothing; it may be asked whether the appliance runs or not, as root, who may see all of it. With --appliance it tells
what the appliance there says of itself.

` + machineDoctorHelp + `

Flags of "seedbed serve" are those that the appliance is started with, where they do not stand in the configuration.`,
	}
	asJSON := jsonFlag(cmd)
	probe := cmd.Flags().Bool("probe", false, "ask the network of each served interface, as a machine that boots from it does, who answers; it sends packets there for 4 s")
	cmd.Flags().SortFlags = false
	serve.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "check" && f.Name != "json" {
			cmd.Flags().AddFlag(f) // the same flag: the configuration fills it, unless it was given
		}
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return o.examineMachine(cmd, args[0], *asJSON)
		}
		d := &examination{o: o, cmd: cmd, probe: *probe, patience: lookPatience, log: slog.New(slog.DiscardHandler)}
		d.began()
		if !*asJSON {
			d.told = func(f doctor.Finding) { d.print(f) }
		}
		if err := d.all(cmd.Context()); err != nil {
			return err
		}
		if *asJSON {
			if err := printJSON(cmd.OutOrStdout(), d.report); err != nil {
				return err
			}
		}
		if d.err != nil {
			return d.err
		}
		if n := d.report.Count(doctor.Wrong); n > 0 {
			return &ailing{wrong: n, of: len(d.report.Findings)}
		}
		return nil
	}
	return cmd
}

// examination is a doctor at work.
type examination struct {
	o     *options
	cmd   *cobra.Command
	c     config // of the appliance, as far as it can be told
	probe bool
	log   *slog.Logger
	// patience is how long a check may take.
	patience time.Duration

	service service // what is known of the appliance
	client  *client.Client
	report  doctor.Report
	told    func(doctor.Finding) // of each finding; nil: of none
	err     error                // of the output
}

func (d *examination) began() {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	d.report = doctor.Report{At: time.Now().UTC(), Host: host, Program: programVersion()}
}

// print writes a finding as one line.
func (d *examination) print(f doctor.Finding) {
	text := f.Text
	if f.Remedy != "" {
		text += "; " + f.Remedy
	}
	text = plain(strings.ReplaceAll(text, "\n", ", "))
	if _, err := fmt.Fprintf(d.cmd.OutOrStdout(), "%-8s %-13s %s\n", f.Verdict, f.Check, text); err != nil && d.err == nil {
		d.err = err
	}
}

func (d *examination) add(list []doctor.Finding) {
	d.report.Add(list...)
	if d.told != nil {
		for _, f := range list {
			d.told(f)
		}
	}
}

// look is one check. It is given up when ctx ends.
type look struct {
	name string
	run  func(ctx context.Context, n *doctor.Notes)
}

// all makes all checks. An error says that none could be made.
func (d *examination) all(ctx context.Context) error {
	var err error
	if d.client, err = d.o.client(d.cmd.InOrStdin()); err != nil {
		return err
	}
	defer d.client.Close()
	if d.o.remote.url != "" {
		d.add(d.bounded(ctx, look{"service", d.lookService}))
		d.each(ctx, d.inside())
		return nil
	}
	n := doctor.Notes{Check: "configuration"}
	d.lookConfiguration(&n)
	d.add(n.List)
	d.client.Close() // the configuration says where the socket is
	if d.client, err = d.o.client(d.cmd.InOrStdin()); err != nil {
		return err
	}
	d.add(d.bounded(ctx, look{"service", d.lookService}))
	d.each(ctx, d.outside())
	d.each(ctx, d.inside())
	return nil
}

// outside are the checks of the host, inside those of what the appliance says.
func (d *examination) outside() []look {
	list := []look{{"data", d.lookData}, {"port", d.lookPorts}, {"network", d.lookNetwork}}
	if d.probe {
		list = append(list, look{"dhcp", d.lookDHCP})
	}
	if !d.c.NoBoot {
		list = append(list, look{"boot files", d.lookBootFiles})
	}
	return append(list, look{"room", d.lookRoom}, look{"repository", d.lookRepository}, look{"records", d.lookRecords}, look{"clock", d.lookClock},
		look{"certificate", d.lookCertificates}, look{"secrets", d.lookSecrets})
}

func (d *examination) inside() []look {
	if !d.service.answers {
		return nil
	}
	return []look{{"schedule", d.lookSchedule}, {"images", d.lookImages}, {"queue", d.lookQueue}, {"machines", d.lookMachines}}
}

// each makes checks at once, and tells what they find in their order.
func (d *examination) each(ctx context.Context, looks []look) {
	found := make([][]doctor.Finding, len(looks))
	done := make([]chan struct{}, len(looks))
	var all sync.WaitGroup
	for i, l := range looks {
		done[i] = make(chan struct{})
		all.Go(func() {
			defer close(done[i])
			found[i] = d.bounded(ctx, l)
		})
	}
	for i := range looks {
		<-done[i]
		d.add(found[i])
	}
	all.Wait()
}

// bounded makes a check, which may be held by what it looks at.
func (d *examination) bounded(ctx context.Context, l look) []doctor.Finding {
	list, err := new(question[[]doctor.Finding]).ask(d.patience, func() ([]doctor.Finding, error) {
		ctx, cancel := context.WithTimeout(ctx, checkPatience)
		defer cancel()
		n := doctor.Notes{Check: l.name}
		l.run(ctx, &n)
		return n.List, nil
	})
	if err != nil {
		n := doctor.Notes{Check: l.name}
		n.Wrong("a file system or a server that is asked for this is gone; look at mounts (`mount`, `dmesg`) and at their servers",
			"this does not answer within %s", d.patience)
		return n.List
	}
	return list
}

// lookConfiguration reads the configuration and what it says of the appliance.
func (d *examination) lookConfiguration(n *doctor.Notes) {
	err := d.o.readConfiguration(d.cmd)
	if err != nil {
		n.Wrong("mend it, and `seedbed serve --check`; what follows is by what could be read of it", "%s", oneLine(err))
	}
	if d.c, err = d.o.settled(); err != nil {
		n.Wrong("mend it, and `seedbed serve --check`", "%s", oneLine(d.o.located(d.cmd, err)))
	}
	switch {
	case len(n.List) > 0:
	case d.o.file != nil && d.o.file.Open:
		n.Warning("`chmod o-r "+d.o.file.Path+"`", "%s: every user of this host may read it", d.o.file.Path)
	case d.o.file != nil:
		n.OK("%s", d.o.file.Path)
	case d.isThere(d.o.configFile):
		n.Warning("ask as root", "%s may not be read by this user; what follows is by the defaults", d.o.configFile)
	default:
		n.OK("there is none at %s; the defaults count, and flags", d.o.configFile)
	}
	r := d.checking(n)
	r.topology()
	if d.c.TLSCert != "" || d.c.TLSKey != "" {
		r.certificate()
	}
}

// isThere reports whether there is something at a path, though it may not be readable.
func (d *examination) isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// checking is what `serve --check` looks at, whose words become findings.
func (d *examination) checking(n *doctor.Notes) *checking {
	return &checking{ctx: d.cmd.Context(), c: d.c, log: d.log, at: func(err error) error { return d.o.located(d.cmd, err) }, told: func(what, sentence string, err error) {
		switch {
		case err == nil:
			n.OK("%s: %s", what, sentence)
		case !notForUs(n, err):
			n.Wrong("", "%s", oneLine(d.o.located(d.cmd, err)))
		}
	}}
}

// notForUs reports whether nothing more can be said of an error than that this user may not look, and notes that.
func notForUs(n *doctor.Notes, err error) bool {
	if os.Geteuid() == 0 || !errors.Is(err, fs.ErrPermission) {
		return false
	}
	n.Warning("ask as root", "this user may not look: %s", oneLine(err))
	return true
}

// oneLine is an error without its line feeds.
func oneLine(err error) string {
	return strings.NewReplacer(":\n", ": ", "\n", ", ").Replace(err.Error())
}
