package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/images/restore"
)

const openWarning = `An open swarm is plain TCP without TLS: whoever reaches the appliance can have the image, and see who takes part. Closed
swarms, the default, let in only machines of the site.`

func imageOpen(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "open IMAGE", Short: "Let stock BitTorrent clients have an image, in plain TCP", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, imageNames),
		Long: `Open makes a second torrent of the image, v1 and v2 in one, which libtorrent, qBittorrent and transmission 4 take, and one of v1
alone for aria2 and transmission 3: the partitions as files p0001, p0002, ..., free space as zeros. All of them are one swarm. It reads the whole image once. The appliance then seeds it, is its
tracker, and has the .torrent file under /torrents/ on its HTTP port, until "seedbed image close".

` + openWarning + `

Deployments, "get" and seed nodes stay in the closed swarm of the image, with certificates and TLS: a stock client never gives a machine of a
deployment anything, and never learns of one. The appliance seeds both swarms from the same image, under the same limits (--swarm-upload-limit
of "seedbed serve" holds for both together). "image ls" and "image show" say which images are open.`}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			show := newMeter(os.Stderr, "hashed")
			s, err := lib.OpenSwarm(cmd.Context(), args[0], show.update)
			show.end()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			printOpen(cmd.OutOrStdout(), s)
			return nil
		})
	}
	return cmd
}

func printOpen(w io.Writer, s *api.OpenSwarm) {
	fmt.Fprintf(w, "image %s is open: plain TCP without TLS, for whoever reaches the appliance\ninfohash  v1 %s\n          v2 %s\n          v1 alone %s\n", s.Image, s.V1, s.InfoHash, s.Plain)
	if s.Torrent == "" {
		fmt.Fprintln(w, "it is served as soon as an appliance runs: `seedbed serve`")
		return
	}
	fmt.Fprintf(w, "torrent   %s\n          %s for clients that do not read hybrid torrents\ntracker   %s\nmagnet    %s\n",
		s.Torrent, s.PlainTorrent, s.Announce, s.Magnet)
}

// openText says in one word or two who may have an image.
func openText(s *api.OpenState) string {
	switch {
	case s == nil:
		return "closed"
	case s.Guests == nil:
		return "OPEN"
	}
	return fmt.Sprintf("OPEN, %d guests", *s.Guests)
}

// printOpenState says how an image is open, if it is.
func printOpenState(w io.Writer, s *api.OpenState) {
	if s == nil {
		return
	}
	fmt.Fprintf(w, "OPEN      since %s to stock BitTorrent clients: plain TCP without TLS, for whoever reaches the appliance; deployments stay in the closed swarm\n", timeText(s.Since))
	if o := s.Swarm; o != nil {
		fmt.Fprintf(w, "          infohash v1 %s\n                   v2 %s\n             v1 alone %s\n", o.V1, o.InfoHash, o.Plain)
	}
	if s.Guests == nil {
		fmt.Fprintln(w, "          not served now: no appliance runs")
		return
	}
	fmt.Fprintf(w, "          guests now: %d, of which %d lack something\n", *s.Guests, *s.Lacking)
}

func imageClose(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "close IMAGE", Short: "Take \"open\" back", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, imageNames),
		Long: `Close stops seeding an image to stock BitTorrent clients. What they have they keep, and may go on giving to each other.`}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			if err := lib.CloseSwarm(cmd.Context(), args[0]); err != nil {
				return err
			}
			return tell(cmd, *asJSON, named{args[0]}, "image %s is closed\n", args[0])
		})
	}
	return cmd
}

func imageTorrent(o *options) *cobra.Command {
	var order api.TorrentOrder
	cmd := &cobra.Command{Use: "torrent IMAGE FILE", Short: "Write the .torrent file of an open image, or - for standard output", Args: cobra.ExactArgs(2),
		ValidArgsFunction: o.completesBefore(1, cobra.ShellCompDirectiveDefault, imageNames),
		Long: `Torrent writes the file that libtorrent, qBittorrent and transmission 4 take, or with --v1 the one for aria2 and transmission 3, with the appliance's tracker in it. FILE gets
its name when it is whole; one that exists is not replaced.

` + openWarning}
	cmd.Flags().StringVar(&order.Announce, "announce", "", "`URL` of the tracker (default: the appliance's)")
	asJSON := jsonFlag(cmd)
	cmd.Flags().BoolVar(&order.Plain, "v1", false, "v1 alone, for clients that do not read hybrid torrents (aria2 1.36, transmission 3)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			b, err := lib.Torrent(cmd.Context(), args[0], order)
			if err != nil {
				return err
			}
			if args[1] == "-" {
				if *asJSON {
					return usageError{errors.New("--json needs a FILE")}
				}
				if isTerminal(os.Stdout) {
					return usageError{errors.New("a torrent is not written to a terminal; redirect it, or name a file")}
				}
				_, err := cmd.OutOrStdout().Write(b)
				return err
			}
			if err := writeNew(args[1], b); err != nil {
				return err
			}
			return tell(cmd, *asJSON, map[string]string{"image": args[0], "file": args[1]}, "torrent of image %s is in %s; its swarm is plain TCP without TLS\n", args[0], args[1])
		})
	}
	return cmd
}

// writeNew makes a file that does not exist, whole and durable or not at all.
func writeNew(path string, b []byte) error {
	out, err := restore.CreateOutput(path, int64(len(b)), 0)
	if err != nil {
		return err
	}
	if err := out.Write(0, b); err != nil {
		return errors.Join(err, out.Abort())
	}
	return out.Commit()
}
