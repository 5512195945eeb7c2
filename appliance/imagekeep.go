package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
)

// damagedImages says that verification found damage that is still there.
type damagedImages struct{ count int }

func (e *damagedImages) Error() string {
	return fmt.Sprintf("%d images are damaged; `seedbed image verify --heal` looks for other copies, or capture again", e.count)
}

func imageVerify(o *options) *cobra.Command {
	var order api.VerifyOrder
	var all, asJSON bool
	var rate int64
	cmd := &cobra.Command{Use: "verify IMAGE", Short: "Read and hash all of an image, and name what is damaged", Args: cobra.MaximumNArgs(1), ValidArgsFunction: o.completes(1, imageNames),
		Long: `Verify reads everything that an image needs from the repository, and hashes every tile. With --heal what is damaged is
replaced by right copies: from another pack, from the disk that --heal-from names, and, while an appliance runs, from
machines that hold the image.`}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "verify all images")
	f.Int64Var(&rate, "rate", 0, "read at most so many `MB/s`")
	f.BoolVar(&order.Heal, "heal", false, "replace what is damaged")
	f.StringVar(&order.HealFrom, "heal-from", "", "a `DISK`, or a file that holds one, with the image")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case all == (len(args) == 1):
			return usageError{errors.New("say which image, or --all")}
		case rate < 0:
			return usageError{errors.New("--rate is a number from 1")}
		case !all:
			order.Image = args[0]
		}
		order.BytesPerSecond = rate * 1e6
		if order.HealFrom != "" {
			var err error
			if order.HealFrom, err = filepath.Abs(order.HealFrom); err != nil {
				return err
			}
			order.Heal = true
		}
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			show := newMeter(os.Stderr, "verified")
			start := time.Now()
			r, err := lib.Verify(cmd.Context(), order, show.update)
			show.end()
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				printVerified(cmd.OutOrStdout(), r, time.Since(start))
			}
			if err != nil || r.IsWhole() {
				return err
			}
			e := &damagedImages{}
			for _, i := range r.Images {
				if !i.IsWhole() {
					e.count++
				}
			}
			return e
		})
	}
	return cmd
}

func printVerified(w io.Writer, r *api.VerifyReport, took time.Duration) {
	for _, i := range r.Images {
		for _, d := range i.Damage {
			state := ""
			if d.Healed {
				state = "; healed"
			}
			fmt.Fprintf(w, "%s%s\n", d.Text, state)
		}
		switch {
		case i.More > 0:
			fmt.Fprintf(w, "image %s: %d more are damaged\n", i.Image, i.More)
		case len(i.Damage) == 0:
			fmt.Fprintf(w, "image %s is whole: every tile has its hash, the signature is this site's\n", i.Image)
		case i.IsWhole():
			fmt.Fprintf(w, "image %s is whole again\n", i.Image)
		}
	}
	fmt.Fprintf(w, "%d images in %.1f s\n", len(r.Images), took.Seconds())
}

func imageRemove(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "rm NAME:VERSION", Short: "Remove a version of an image", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, imageNames),
		Long: `Rm makes a version exist no more; its number is never used again. A version that a deployment uses is refused. The room
that only this version takes becomes free by "seedbed image prune", or by the appliance in time.`}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			if err := lib.Remove(cmd.Context(), args[0]); err != nil {
				return err
			}
			return tell(cmd, *asJSON, named{args[0]}, "image %s is removed\n", args[0])
		})
	}
	return cmd
}

func imagePrune(o *options) *cobra.Command {
	var order api.PruneOrder
	var asJSON bool
	cmd := &cobra.Command{Use: "prune", Short: "Free the room of what no image uses", Args: cobra.NoArgs,
		Long: `Prune marks what no image uses, and deletes what an earlier prune marked and whose grace is over; captures under way are
safe. It also brings together what belongs together. A running appliance prunes by itself.`}
	f := cmd.Flags()
	f.BoolVar(&order.DryRun, "dry-run", false, "change nothing, say what would be done")
	f.DurationVar(&order.Grace, "grace", 0, "how long what is marked stays (default: the least that is safe)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			show := newMeter(os.Stderr, "rewritten")
			r, err := lib.Prune(cmd.Context(), order, show.update)
			show.end()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printPruned(cmd.OutOrStdout(), r)
		})
	}
	return cmd
}

func printPruned(w io.Writer, r *api.PruneReport) error {
	if r.DryRun {
		fmt.Fprintln(w, "nothing was changed; a prune now does this:")
	}
	t := newTable(w, "", "OBJECTS", "BYTES")
	for _, row := range []struct {
		what string
		n    api.Amount
	}{{"freed", r.Deleted}, {"marked, to be freed later", r.Marked}, {"marked before", r.Waiting}, {"in use again", r.Unmarked}, {"too young to be marked", r.Young}} {
		t.row(row.what, row.n.Objects, bytesText(row.n.Bytes))
	}
	t.row("rewritten", "-", bytesText(r.Rewritten))
	if err := t.flush(); err != nil || r.Next.IsZero() {
		return err
	}
	_, err := fmt.Fprintf(w, "what is marked can be freed from %s on\n", timeText(r.Next))
	return err
}

func imageDiff(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "diff A B", Short: "Say what a machine with image A must fetch for image B", Args: cobra.ExactArgs(2), ValidArgsFunction: o.completes(2, imageNames)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			d, err := lib.Diff(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), d)
			}
			t := newTable(cmd.OutOrStdout(), "PARTITION", "TILES", "OF", "SHARE", "DECODED", "TO FETCH", "ZERO TILES")
			var sum api.PartitionDiff
			for _, p := range d.Partitions {
				t.row(p.Number, p.Tiles, p.Total, percent(p.Tiles, p.Total), bytesText(p.Length), bytesText(p.Encoded), p.ZeroTiles)
				sum.Tiles, sum.Total, sum.Length = sum.Tiles+p.Tiles, sum.Total+p.Total, sum.Length+p.Length
				sum.Encoded, sum.ZeroTiles = sum.Encoded+p.Encoded, sum.ZeroTiles+p.ZeroTiles
			}
			t.row("all", sum.Tiles, sum.Total, percent(sum.Tiles, sum.Total), bytesText(sum.Length), bytesText(sum.Encoded), sum.ZeroTiles)
			return t.flush()
		})
	}
	return cmd
}

func percent(n, of int64) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(of))
}

func ratio(n, of int64) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(n)/float64(of))
}
