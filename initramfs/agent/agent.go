// Package agent is what runs on a machine that is to be imaged: it says hello to the appliance, tells what the machine
// is, takes a job and carries it out, and says all the while where it stands.
package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/initramfs/board"
	"seedbed/initramfs/disk"
	"seedbed/initramfs/left"
)

// Machine is the computer that the agent runs on.
type Machine interface {
	// SetClock sets the machine's clock.
	SetClock(time.Time) error
	// Inventory returns what the machine is, disks and NICs included.
	Inventory() job.Inventory
	// Disks looks for disks anew.
	Disks() ([]disk.Disk, error)
	// Open opens a disk for this process alone.
	Open(name string) (*disk.Device, error)
	// OpenSource opens a disk that is only read.
	OpenSource(name string) (*disk.Source, error)
}

// Config says what an agent works with. Boot, Machine and Screen are needed.
type Config struct {
	Boot    job.Boot
	Machine Machine
	Screen  *Screen
	// Log is told what the engine does; nil discards.
	Log *slog.Logger
	// Version of the agent, for the hello.
	Version string
	// ListenAddr is where the swarm's peers reach this machine; zero means ":6881".
	ListenAddr string
	// MemoryBytes bounds what the swarm holds in memory; zero leaves it to the swarm.
	MemoryBytes int64
	// Left keeps for the next boot why this one does not reach the appliance; nil keeps nothing.
	Left *left.Store
	// LoadModule loads a kernel module by name, if it is there; nil leaves all to the kernel.
	LoadModule func(name string)

	timing     timing
	relayLeast int64 // zero means relay.Least
}

// timing holds the agent's waits. Tests shorten them.
type timing struct {
	rest     time.Duration // the list of disks has to stay the same so long
	rescan   time.Duration // between two looks for a disk that fits
	progress time.Duration // between two lines of progress
	failed   time.Duration // between two reports of a failure
	alone    time.Duration // a finished machine that hears nothing of the appliance so long goes on by itself
	idle     time.Duration // a machine that may have a job and gets none so long boots its own disk
	trouble  time.Duration // an agent that gets no answer to its hello so long says why by the port of the boot files
	keep     time.Duration // an agent that gets no answer to its hello so long leaves the reason for the next boot
	swarm    time.Duration // a machine that gets nothing of its image so long looks whether it reaches who has it
}

var defaultTiming = timing{rest: time.Second, rescan: 3 * time.Second, progress: 5 * time.Second, failed: 10 * time.Second, alone: time.Minute,
	idle: 2 * time.Minute, trouble: 5 * time.Second, keep: 30 * time.Second, swarm: 10 * time.Second}

// Agent carries out the jobs of one boot of one machine. Run owns it.
type Agent struct {
	cfg     Config
	client  *client
	screen  *Screen
	log     *slog.Logger
	ca      *x509.Certificate
	siteKey ed25519.PublicKey
	machine string    // ID
	code    string    // shown on the screen until the machine is admitted
	expires time.Time // when this boot's certificate ends; zero if the clock is not set
	// processors of the machine; the zero value asks the kernel.
	processors processors
}

// New checks the configuration and makes the key of this boot.
func New(cfg Config) (*Agent, error) {
	if cfg.Machine == nil || cfg.Screen == nil {
		return nil, errors.New("agent: Machine and Screen are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ListenAddr == "" {
		cfg.ListenAddr = ":6881"
	}
	if cfg.timing == (timing{}) {
		cfg.timing = defaultTiming
	}
	c, err := newClient(cfg.Boot)
	if err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, client: c, screen: cfg.Screen, log: cfg.Log}, nil
}

// What follows a run.
const (
	Reboot   = "reboot"
	PowerOff = "poweroff"
	Stay     = "stay"
)

// ErrRefused says that the appliance does not know this boot: nothing was done, and a new boot gets a new token.
var ErrRefused = errors.New("the appliance refused this boot")

// Run works until a job has succeeded, and returns what is to follow: Reboot, PowerOff or Stay. After a failed job it
// shows and reports the failure until ctx ends or the appliance has it tried again. ErrRefused says that the machine has to boot anew.
func (a *Agent) Run(ctx context.Context) (after string, err error) {
	if err := a.hello(ctx); err != nil {
		return "", err
	}
	for first := true; ; first = false {
		j, err := a.nextJob(ctx, first)
		if errors.Is(err, errIdle) {
			a.screen.Say("there is no job for this machine: it starts its own disk")
			a.screen.Stand(board.Done, "no job", "There is no job for this machine: it starts its own disk.")
			return Reboot, nil
		}
		if err != nil {
			return "", err
		}
		err = a.work(ctx, j)
		var failure *Failure
		switch {
		case err == nil:
			return j.After, nil
		case errors.As(err, &failure) && failure.over:
			a.screen.Say("%s", failure.Sentence)
			a.screen.showOver(j, failure)
		case errors.As(err, &failure) && failure.found != nil:
			if err := a.tellFound(ctx, j, failure); err != nil {
				return "", err
			}
			return j.After, nil
		case errors.As(err, &failure):
			if err := a.stayFailed(ctx, j, failure); err != nil {
				return "", err
			}
		default:
			return "", err
		}
	}
}

// hello redeems the boot's token, sets the clock and learns who the site is.
func (a *Agent) hello(ctx context.Context) error {
	key, err := a.client.publicKey()
	if err != nil {
		return err
	}
	var w job.Welcome
	trouble := a.newTrouble()
	err = a.retry(ctx, "answer the hello", func(ctx context.Context) (err error) {
		defer func() { trouble.keep(ctx, err); trouble.tell(ctx, err) }()
		h := job.Hello{Token: a.cfg.Boot.Token, MAC: a.cfg.Boot.MAC, PublicKey: key, Clock: time.Now(), Version: a.cfg.Version, Left: a.cfg.Left.Found()}
		attempt, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_, err = a.client.post(attempt, job.PathHello, h, &w)
		return err
	})
	if err != nil {
		return refusedBoot(err)
	}
	if err := a.cfg.Left.Told(); err != nil {
		a.log.Warn("what the boot before left stays there", "err", err)
	}
	if a.ca, err = x509.ParseCertificate(w.CA); err != nil {
		return fmt.Errorf("the site's certificate: %w", err)
	}
	if len(w.SiteKey) != ed25519.PublicKeySize {
		return fmt.Errorf("the site's key has %d bytes instead of %d", len(w.SiteKey), ed25519.PublicKeySize)
	}
	a.siteKey = w.SiteKey
	off := time.Since(w.Time).Round(time.Second)
	set := true
	if err := a.cfg.Machine.SetClock(w.Time); err != nil {
		set = false
		a.screen.Say("the clock cannot be set: %v", err)
	} else if off.Abs() > time.Minute {
		a.screen.Say("the clock was off by %v and is set now; the machine's battery may be empty", off)
	}
	if own, err := x509.ParseCertificate(w.Certificate); err != nil {
		return fmt.Errorf("this boot's certificate: %w", err)
	} else if set {
		a.expires = own.NotAfter
	}
	a.client.identify(w.Certificate, set, w.Appliances)
	a.screen.Say("the appliance at %s answered", a.client.appliances[0])
	return nil
}

func refusedBoot(err error) error {
	if refused(err) != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// nextJob tells the appliance what this machine is and waits for a job. A machine that was admitted and had no job in
// this boot does not wait for ever: errIdle says that it is to boot its own disk.
func (a *Agent) nextJob(ctx context.Context, first bool) (j job.Job, err error) {
	admitted, err := a.inventory(ctx)
	if err != nil {
		return j, err
	}
	began := time.Now()
	for {
		j = job.Job{}
		got, err := a.claim(ctx, &j)
		if err != nil {
			return j, err
		}
		if got && j.Waits != "" {
			a.screen.SayOnce("idle", "there is a job for this machine, which %s", j.Waits)
			a.screen.stand(board.Board{Level: board.Waiting, Word: "waiting", Image: j.ImageName, Message: "There is a job for this machine, which " + j.Waits})
			began = time.Now()
			continue
		}
		if got {
			a.client.know(j.Appliances)
			a.screen.Say("job %s: %s %s", j.ID, j.Kind, j.ImageName)
			return j, nil
		}
		if !admitted {
			if admitted, err = a.inventory(ctx); err != nil {
				return j, err
			}
			began = time.Now()
			continue
		}
		if first && time.Since(began) > a.cfg.timing.idle {
			return j, errIdle
		}
		a.screen.SayOnce("idle", "there is no job for this machine yet; it waits for one")
		a.screen.Stand(board.Waiting, "no job", "There is no job for this machine yet; it waits for one.")
	}
}

// errIdle says that there is no job for this machine.
var errIdle = errors.New("there is no job for this machine")

// inventory tells the appliance what this machine is, and says whether it has been admitted.
func (a *Agent) inventory(ctx context.Context) (admitted bool, err error) {
	var admission job.Admission
	err = a.retry(ctx, "take the inventory", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_, err := a.client.post(ctx, job.PathInventory, a.cfg.Machine.Inventory(), &admission)
		return err
	})
	if err != nil {
		return false, refusedBoot(err)
	}
	a.machine = admission.Machine
	if admission.Admitted {
		a.screen.SayOnce("machine", "this machine is %s", admission.Name)
		a.screen.Show(func(b *board.Board) { b.Name, b.ID, b.Code = admission.Name, admission.Machine, "" })
	} else if admission.Code != a.code {
		a.code = admission.Code
		a.screen.Alarm(fmt.Sprintf("this machine is new here and waits to be admitted. Its code is %s: on the appliance, "+
			"run `seedbed machine admit %s`", admission.Code, admission.Code))
		a.screen.stand(board.Board{Level: board.Waiting, Word: "new here", Code: admission.Code, Message: "This machine waits to be admitted. Compare the code " +
			"with the one in the console and admit it there, or run on the appliance: seedbed machine admit " + admission.Code})
	}
	return admission.Admitted, nil
}

// claimTimeout is how long an appliance may take to answer a claim, which it does after 20 s at the latest.
const claimTimeout = 25 * time.Second

// claim asks once for a job, and is answered after some seconds if there is none.
func (a *Agent) claim(ctx context.Context, j *job.Job) (got bool, err error) {
	err = a.retry(ctx, "give a job", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, a.client.forEach(claimTimeout))
		defer cancel()
		began := time.Now()
		if !a.expires.IsZero() && began.After(a.expires) {
			// The appliance would break off the handshake, which looks like one that is away.
			return &problem{job.Problem{Status: http.StatusUnauthorized, Detail: "the certificate of this boot ended while the " +
				"machine waited for a job; a new boot gets a new one"}}
		}
		said := a.screen.news(began)
		got, err = a.client.post(ctx, job.PathClaim, job.Claim{Machine: a.machine, Screen: said}, j)
		if err == nil {
			a.screen.knows(said, began)
		}
		if err == nil && (!got || j.Waits != "") && time.Since(began) < time.Second {
			return sleep(ctx, time.Second) // an appliance that does not hold the question must not be asked in a loop
		}
		return err
	})
	if err != nil {
		return false, refusedBoot(err)
	}
	return got, nil
}

// report sends one report, with what the screen says where the appliance does not know that.
func (a *Agent) report(ctx context.Context, r job.Report, answer *job.Directive) error {
	now := time.Now()
	r.Screen = a.screen.news(now)
	_, err := a.client.post(ctx, job.PathReport, r, answer)
	if err == nil {
		a.screen.knows(r.Screen, now)
	}
	return err
}

// work carries out one job.
func (a *Agent) work(ctx context.Context, j job.Job) error {
	defer runtime.GC() // buffers of a job are no use to the next one
	switch j.Kind {
	case job.Deploy, job.VerifyDisk, job.RepairDisk, job.WipeDisk, job.InventoryOf:
		return newDeployment(a, j).run(ctx)
	case job.Capture:
		return newCapturing(a, j).run(ctx)
	default:
		return &Failure{Code: "unknown-kind", Sentence: fmt.Sprintf("this agent cannot carry out a job of kind %q; give the "+
			"appliance a newer initramfs", j.Kind)}
	}
}

// Failure is why a job did not succeed, in words for people.
type Failure struct {
	Code     string // short fixed word: "write-error"
	Sentence string // what happened, to what, what to do
	Err      error  // the cause, may be nil
	over     bool   // the job was ended by others, and the machine may take another one
	at       job.Phase
	found    *job.Finding // of a verify: the machine has done what it was to do, and goes on
}

func (f *Failure) Error() string { return f.Sentence }
func (f *Failure) Unwrap() error { return f.Err }

// tellFound reports what a verify found to be wrong, until the appliance has taken it or knows better.
func (a *Agent) tellFound(ctx context.Context, j job.Job, f *Failure) error {
	a.screen.Alarm(fmt.Sprintf("%s (%s)", strings.TrimSuffix(f.Sentence, "."), f.Code))
	a.screen.showFailure(j, f, "The machine goes on.")
	report := job.Report{Job: j.ID, Epoch: j.Epoch, Phase: f.at, State: job.Failed, Code: f.Code, Reason: f.Sentence, Log: a.screen.Tail(), Found: f.found}
	err := a.retry(ctx, "take what was found", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return a.report(ctx, report, new(job.Directive))
	})
	if refused(err) != nil {
		return nil // the job is another's by now
	}
	return err
}

// stayFailed shows a failure and reports it until ctx ends, or until the appliance says that the job is to be done again: nil.
func (a *Agent) stayFailed(ctx context.Context, j job.Job, f *Failure) error {
	a.screen.Alarm(fmt.Sprintf("FAILED (%s): %s. This machine takes another job when it starts again: type \"reboot\" and Enter", f.Code,
		strings.TrimSuffix(f.Sentence, ".")))
	a.screen.showFailure(j, f, rebootTodo)
	report := job.Report{Job: j.ID, Epoch: j.Epoch, Phase: f.at, State: job.Failed, Code: f.Code, Reason: f.Sentence, Log: a.screen.Tail()}
	wait := a.cfg.timing.failed
	for {
		attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
		var answer job.Directive
		err := a.report(attempt, report, &answer)
		cancel()
		switch {
		case err == nil && answer.Again:
			a.screen.Say("the job is tried again in a moment")
			a.screen.Stand(board.Waiting, "trying again", "The job is tried again in a moment.")
			return nil
		case err == nil:
			a.screen.SayOnce("failed", "the appliance knows of the failure; the disk is not touched any more")
			wait = 3 * a.cfg.timing.failed // alive, for those who look
		case refused(err) == nil && ctx.Err() == nil:
			a.screen.SayOnce("failed", "the appliance does not know of the failure yet: %v; trying again", plain(err))
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}
