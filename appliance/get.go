package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/job"
	"seedbed/images"
)

// getOrder is what `seedbed get` may be told.
type getOrder struct {
	image, path string
	partition   int // number; -1 is the whole disk
	unverified  bool
	force       bool
	seedFor     time.Duration
	network     peerFlags
}

// GetReport says what `seedbed get` did.
type GetReport struct {
	Image  string        `json:"image"`
	Digest images.Digest `json:"digest"`
	Path   string        `json:"path"`
	// Partition is the number of the one that was fetched; nil is the whole disk.
	Partition  *int  `json:"partition,omitempty"`
	Length     int64 `json:"length"`      // bytes of the disk or partition
	DataLength int64 `json:"data_length"` // decoded bytes of data
	// Resumed are bytes of data that were there before; the others came encoded, in so many bytes.
	Resumed       int64 `json:"resumed"`
	FromAppliance int64 `json:"from_appliance"`
	FromPeers     int64 `json:"from_peers"`
	// Verified says that everything was read back and compared; FromDisk that this went past the memory of the machine.
	Verified bool          `json:"verified"`
	FromDisk bool          `json:"from_disk"`
	Took     time.Duration `json:"took"`
}

func getCommand(o *options) *cobra.Command {
	order := getOrder{}
	var tokenFile string
	var asJSON bool
	cmd := &cobra.Command{Use: "get IMAGE OUT", Short: "Fetch an image, or a partition of one, from the swarm into a file or onto a disk", Args: cobra.ExactArgs(2),
		Long: `Get takes part in the swarm of an image and writes the whole disk to OUT, its partition table last: a raw disk file, or a
block device, of which everything is lost. With --partition it writes one partition. What is in no use reads as zeros in a
file, and is left as it is on a device.

A file is named OUT.part until it is whole, and a get that was interrupted goes on with what is there: on a device too. The
key by which it does so is in OUT.part.pass, or for a device in the user's cache; remove both files to give up.
Everything is read back and compared at the end; --unverified leaves that out: the file is then named OUT.unverified, the output and --json ("verified": false) say so, and so does the
appliance's event. Tiles are compared with their hashes when they arrive all the same. Deployments are always verified.

On the appliance's own host nothing else is needed. Elsewhere a token is: made with "seedbed token new --for get" at the
appliance, and given with --token-file or in ` + tokenVariable + `.`}
	f := cmd.Flags()
	f.StringVar(&tokenFile, "token-file", "", "`FILE` with the token, - for standard input (default: the environment, "+tokenVariable+")")
	f.IntVar(&order.partition, "partition", -1, "fetch this partition only, by its `NUMBER`")
	f.BoolVar(&order.unverified, "unverified", false, "do not read back and compare what was written")
	f.BoolVar(&order.force, "force", false, "write to a disk that is in use (Linux)")
	f.DurationVar(&order.seedFor, "seed-for", 0, "serve other machines for so long afterwards")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	order.network.add(f, ":0")
	order.network.addInterfaces(f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := order.network.check(); err != nil {
			return err
		}
		if cmd.Flag("partition").Changed && order.partition < 0 || order.seedFor < 0 {
			return usageError{errors.New("--partition and --seed-for are from 0")}
		}
		ticket, err := readTicket(tokenFile, cmd.InOrStdin())
		if err != nil {
			return err
		}
		log, err := o.log()
		if err != nil {
			return err
		}
		order.image = args[0]
		if order.path, err = filepath.Abs(args[1]); err != nil {
			return err
		}
		out, err := order.open()
		if err != nil {
			return err
		}
		defer out.close()
		g, err := o.newGuest(cmd.Context(), job.RoleGet, ticket, out.pass, log)
		if err != nil {
			return err
		}
		defer g.close()
		g.unverified = order.unverified
		g.limits = order.network.share()
		if g.local == nil { // no interface leads to this host itself
			g.use(order.network.transport)
		}
		run := &getting{order: &order, out: out, g: g, show: os.Stderr, tell: func(r *GetReport) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			printGot(cmd.OutOrStdout(), r)
			return nil
		}}
		return out.explain(cmd.Context(), run.run(cmd.Context()))
	}
	return cmd
}

func printGot(w io.Writer, r *GetReport) {
	what := "image " + r.Image
	if r.Partition != nil {
		what = fmt.Sprintf("partition %d of image %s", *r.Partition, r.Image)
	}
	fmt.Fprintf(w, "%s is in %s: %s with %s of data, %s of it were there, %s came from the appliance and %s from other machines (%.1f s)\n", what, r.Path,
		bytesText(r.Length), bytesText(r.DataLength), bytesText(r.Resumed), bytesText(r.FromAppliance), bytesText(r.FromPeers), r.Took.Seconds())
	switch {
	case !r.Verified:
		fmt.Fprintf(w, "UNVERIFIED: what %s holds was not read back and compared, as was asked\n", r.Path)
	case r.FromDisk:
		fmt.Fprintln(w, "verified: read back from the disk, past the memory of this machine, and compared")
	default:
		fmt.Fprintln(w, "verified: read back through the memory of this machine, since this file cannot be read otherwise, and compared")
	}
}
