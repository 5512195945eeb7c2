// Command seedbed is the appliance: `seedbed serve` boots machines from the network and images them; the other commands
// are the operator's.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"seedbed/appliance/client"
	"seedbed/appliance/configuration"
	"seedbed/appliance/fleet"
	"seedbed/images/repository"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "seedbed:", plainLines(err.Error()))
	}
	os.Exit(exitCode(err))
}

// Exit codes; the table in the help of the command says the same.
const (
	exitFailure  = 1
	exitUsage    = 2
	exitNotFound = 3
	exitRefused  = 4
	exitStopped  = 5
	exitDamaged  = 6
	exitLocked   = 7
	exitWrong    = 8
	exitDenied   = 9
	exitJobs     = 10
	exitAiling   = 11
)

const exitTable = `Exit codes:
  0  done
  1  something failed; the message says what
  2  the command line cannot be understood
  3  no such image, machine, group, job, deployment, user or token
  4  refused: the request contradicts what is there
  5  the appliance is not running, or is not reached
  6  an image is damaged
  7  another process works on the repository
  8  a disk does not hold the image
  9  who asks may not do that, or is not known
 10  a job that was waited for failed or was cancelled
 11  doctor found something wrong`

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }

// exitCode maps an error to the program's exit code.
func exitCode(err error) int {
	var usage usageError
	_, wrong := errors.AsType[*wrongDisk](err)
	_, damaged := errors.AsType[*damagedSource](err)
	_, damagedToo := errors.AsType[*damagedImages](err)
	_, jobs := errors.AsType[*unfinished](err)
	_, ails := errors.AsType[*ailing](err)
	refusal, refused := errors.AsType[*fleet.Refusal](err)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, client.ErrNotRunning):
		return exitStopped
	case errors.Is(err, repository.ErrLocked):
		return exitLocked
	case jobs:
		return exitJobs
	case ails:
		return exitAiling
	case wrong:
		return exitWrong
	case damaged, damagedToo:
		return exitDamaged
	case !refused:
		return exitFailure
	}
	switch refusal.Code {
	case fleet.CodeImageUnknown, fleet.CodeMachineUnknown, fleet.CodeJobUnknown, fleet.CodeCodeUnknown, fleet.CodeTokenMissing,
		fleet.CodeGroupUnknown, fleet.CodeDeploymentUnknown, fleet.CodeUserUnknown, codeSiteMissing:
		return exitNotFound
	case fleet.CodeForbidden, fleet.CodeUnauthorised, fleet.CodeLogin, fleet.CodeTooMany:
		return exitDenied
	case codeDamaged:
		return exitDamaged
	case codeDiskWrong:
		return exitWrong
	case "internal":
		return exitFailure
	}
	return exitRefused
}

const recordsUsage = "`LOCATION` of the records: a file, or postgres://USER@HOST/NAME for several appliances (default: records.db in the data directory)"

// options are the flags that all commands share.
type options struct {
	data       string
	repository string // location of the images, see openBucket
	records    string // location of the records, see recordsAt
	logLevel   string
	remote     remote // the appliance that is asked

	recordsPassword string                 // path of a file with the password of the records, see recordsWith
	configFile      string                 // path of the configuration
	file            *configuration.File    // what it says; nil where there is none
	settled         func() (config, error) // what the flags of serve, and the configuration, make of an appliance
}

func (o *options) socket() string { return filepath.Join(o.data, "seedbed.sock") }

func (o *options) log() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, usageError{fmt.Errorf("log level %q is neither debug, info, warn nor error", o.logLevel)}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), nil
}

// command returns the tree of commands.
func command() *cobra.Command {
	o := new(options)
	root := &cobra.Command{
		Use: "seedbed", Short: "Image many machines at once over the network", Version: programVersion(),
		Long:         "Seedbed boots machines from the network and puts disk images on them through a peer-to-peer swarm.\n\n" + exitTable,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&o.repository, "repository", "", repositoryUsage)
	root.PersistentFlags().StringVar(&o.records, "store", "", recordsUsage)
	root.PersistentFlags().StringVar(&o.data, "data", dataFolder(), "`DIR` of identity, records, images and the local socket")
	root.PersistentFlags().StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	o.remote.flags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&o.recordsPassword, "store-password-file", "", "`FILE` with the password of records in PostgreSQL, mode 0600 (default: none, or what PGPASSFILE says)")
	root.PersistentFlags().StringVar(&o.configFile, "config", configPath(), configUsage)
	root.PersistentPreRunE = o.configure
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%s; see `%s --help`", goWords.ReplaceAllString(err.Error(), ""), c.CommandPath())}
	})
	serve := serveCommand(o)
	root.AddCommand(serve, getCommand(o), seedCommand(o), tokenCommand(o), imageCommand(o), verifyCommand(o), deployCommand(o), captureCommand(o), deploymentCommand(o), jobCommand(o), machineCommand(o),
		groupCommand(o), userCommand(o), settingsCommand(o), alertCommand(o), applianceCommand(o), eventCommand(o), metricsCommand(), topologyCommand(), configCommand(o), manCommand(), siteCommand(o), doctorCommand(o, serve))
	for _, c := range root.Commands() {
		markUsage(c)
	}
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("%q is no command; `seedbed --help` lists them", args[0])}
		}
		return nil
	}
	root.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return root
}

// goWords are what errors about flags tell of the functions that read them.
var goWords = regexp.MustCompile(`strconv\.\w+: parsing "[^"]*": |time: `)

// markUsage makes a wrong number of arguments a usageError, for the command and those below it.
func markUsage(c *cobra.Command) {
	for _, sub := range c.Commands() {
		markUsage(sub)
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError{fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())}
			}
			return nil
		}
		return
	}
	if c.HasSubCommands() {
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("%q is no command of `%s`", strings.Join(args, " "), c.CommandPath())}
			}
			return nil
		}
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
}

// programVersion is the version that this program was built as.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
