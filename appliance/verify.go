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

// wrongDisk says that a disk does not hold the image.
type wrongDisk struct{ path, image string }

func (e *wrongDisk) Error() string {
	return fmt.Sprintf("%s does not hold image %s; `seedbed verify %s %s --repair` writes what is wrong", e.path, e.image, e.image, e.path)
}

// damagedSource says that a disk could not be repaired, since the image itself is damaged.
type damagedSource struct {
	path, image string
	tiles       int
}

func (e *damagedSource) Error() string {
	return fmt.Sprintf("%s is not repaired: %d tiles of image %s are damaged in the repository and were found nowhere else; repair it once more while machines hold the image, or name a disk that does with --heal-from",
		e.path, e.tiles, e.image)
}

func verifyCommand(o *options) *cobra.Command {
	var order api.DiskOrder
	var asJSON bool
	cmd := &cobra.Command{Use: "verify IMAGE DISK", Short: "Compare a disk, or a file that holds one, with an image", Args: cobra.ExactArgs(2),
		Long: `Verify reads what the image uses of the disk and lists each part that is wrong; free space may hold anything. A disk of
another length than the captured one is right if its partition table is the image's, made for that length.

With --repair it writes what is wrong and nothing else, the partition table last, and reads it back from the disk. A disk
that is in use is refused. Without --repair the disk is only read. A repair that was interrupted is completed by another.
What is damaged in the repository comes, while an appliance runs, from machines that hold the image, and from the disk that
--heal-from names; the repository is healed with it.`}
	f := cmd.Flags()
	f.BoolVar(&order.Repair, "repair", false, "write what is wrong")
	f.StringVar(&order.HealFrom, "heal-from", "", "another `DISK`, or a file that holds one, with the image: for what is damaged in the repository")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if order.Path, err = filepath.Abs(args[1]); err != nil {
			return err
		}
		if order.HealFrom != "" {
			if !order.Repair {
				return usageError{errors.New("--heal-from needs --repair; `seedbed image verify --heal-from` heals the repository alone")}
			}
			if order.HealFrom, err = filepath.Abs(order.HealFrom); err != nil {
				return err
			}
		}
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			show := newMeter(os.Stderr, "checked")
			start := time.Now()
			r, err := lib.CheckDisk(cmd.Context(), args[0], order, show.update)
			show.end()
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				printDisk(cmd.OutOrStdout(), r, time.Since(start))
			}
			switch {
			case err != nil || r.IsRight():
				return err
			case r.Repair != nil:
				return &damagedSource{r.Path, r.Image, len(r.Repair.Left)}
			}
			return &wrongDisk{r.Path, r.Image}
		})
	}
	return cmd
}

func printDisk(w io.Writer, r *api.DiskReport, took time.Duration) {
	for _, e := range r.Ranges {
		fmt.Fprintln(w, e)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "and %d more\n", r.More)
	}
	if r.WrongTiles == 0 && r.WrongFrame == 0 {
		fmt.Fprintf(w, "%s holds image %s: %s compared, and the table (%.1f s)\n", r.Path, r.Image, bytesText(r.Compared), took.Seconds())
		return
	}
	fmt.Fprintf(w, "%d tiles (%s) of %s are wrong, and %d bytes outside the partitions (%.1f s)\n", r.WrongTiles, bytesText(r.WrongLength),
		bytesText(r.Compared), r.WrongFrame, took.Seconds())
	if r.Repair == nil {
		return
	}
	for _, left := range r.Repair.Left {
		fmt.Fprintln(w, left)
	}
	how := "read back from the disk, past the memory of this machine"
	if !r.Repair.FromDisk {
		how = "read back through the memory of this machine, since this file cannot be read otherwise"
	}
	fmt.Fprintf(w, "repaired: %d tiles, %d bytes were written and %s\n", r.Repair.Tiles, r.Repair.Length, how)
	if r.Repair.Elsewhere > 0 {
		state := "the repository is healed with them"
		if r.Repair.NotHealed != "" {
			state = r.Repair.NotHealed
		}
		fmt.Fprintf(w, "%d of the tiles were damaged in the repository and came from elsewhere; %s\n", r.Repair.Elsewhere, state)
	}
}
