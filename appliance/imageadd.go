package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/images"
)

const imageAddHelp = `SOURCE is a disk (/dev/sdb), a raw disk file, the first volume of one (NAME.001), or a virtual machine's disk
(qcow2, VHDX, VHD, VMDK, VDI), which qemu-nbd reads without a copy. Of a raw disk file that is packed with zstd or gzip
a sparse copy is kept in the data directory while it is read. It is never written: a disk is set read-only
while it is read (if the program is killed then, blockdev --setrw takes that back), and one that is mounted for
writing is refused. Files that refer to other files, such as backing files, are refused.

Only what the file systems use is read. One that is not clean is refused with the remedy; --full copies all of it as
it is. Contents of page files, hibernation files and swap space are left out.

--trust-source makes a new version without reading the file, if its path, inode, length, times of last change,
partition table and file systems' UUIDs are those of an earlier capture with the same options. Who changes a file and
sets the appliance's clock back meanwhile gets the old content; a network file system may tell times late.`

func imageAdd(o *options) *cobra.Command {
	var order api.ImageOrder
	var asJSON bool
	var piece, full string
	cmd := &cobra.Command{Use: "add SOURCE", Short: "Make an image of a disk, a disk file or a virtual machine's disk", Long: imageAddHelp, Args: cobra.ExactArgs(1)}
	f := cmd.Flags()
	f.StringVar(&order.Name, "name", "", "`NAME` of the image: 1-64 of a-z 0-9 . _ -")
	f.StringVar(&order.Version, "version", "", "its version (default: the next whole number)")
	f.StringVar(&order.Compress, "compress", "zstd", "zstd[:1-22], lz4[:1-9] (fast links, weak machines) or none")
	f.StringVar(&piece, "piece", "", "length of a piece, a power of two from 256KiB to 16MiB, as `SIZE` (default: by the length of the content)")
	f.IntSliceVar(&order.Partitions, "partitions", nil, "capture only these `NUMBERS`: 1,3; a deployment writes nothing into the others")
	f.IntVar(&order.SectorLength, "sector", 0, "logical sector of a disk file in `BYTES` (default: as its table says, else 512)")
	f.StringVar(&full, "full", "", "copy partitions whole that would be refused: all, or these `NUMBERS` (--full=1,2)")
	f.Lookup("full").NoOptDefVal = "all"
	f.BoolVar(&order.KeepContents, "keep-contents", false, "keep page files, hibernation files and swap space")
	f.BoolVar(&order.RefuseEncrypted, "refuse-encrypted", false, "refuse what can only be copied whole: encrypted partitions, file systems without a map")
	f.BoolVar(&order.TrustSource, "trust-source", false, "do not read a file that has not changed since an earlier image of it")
	f.BoolVar(&order.Live, "live", false, "take a disk that is mounted for writing as it is; the image may contradict itself")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if order.Name == "" {
			return usageError{fmt.Errorf("the image needs a name; give one with --name")}
		}
		if _, _, err := parseCompression(order.Compress); err != nil {
			return usageError{err}
		}
		if order.PieceLength, err = parsePiece(piece); err != nil {
			return usageError{err}
		}
		if order.Full, order.FullPartitions, err = parseFull(full); err != nil {
			return usageError{err}
		}
		if order.Path, err = filepath.Abs(args[0]); err != nil {
			return err
		}
		return o.withImages(cmd.Context(), func(lib api.Images) error { return addImage(cmd, lib, order, asJSON) })
	}
	return cmd
}

// parseFull reads the value of --full: "" nothing, "all", or numbers.
func parseFull(s string) (all bool, numbers []int, err error) {
	if s == "" || s == "all" {
		return s == "all", nil, nil
	}
	for field := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 0 {
			return false, nil, fmt.Errorf("--full=%s: %q is no number of a partition", s, field)
		}
		numbers = append(numbers, n)
	}
	return false, numbers, nil
}

var pieceSize = regexp.MustCompile(`^(?i)(\d{1,8})(K|M)?i?B?$`)

// parsePiece reads a length such as "4MiB", "512K" or "1048576"; "" is 0.
func parsePiece(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	var n int64
	if m := pieceSize.FindStringSubmatch(s); m != nil {
		n, _ = strconv.ParseInt(m[1], 10, 64) // digits only
		n *= map[string]int64{"": 1, "K": 1 << 10, "M": 1 << 20}[strings.ToUpper(m[2])]
	}
	if n < images.MinPieceLength || n > images.MaxPieceLength || n&(n-1) != 0 {
		return 0, fmt.Errorf("--piece %s is no power of two from 256KiB to 16MiB", s)
	}
	return n, nil
}

// addImage has an image made, and shows how far it is and what came out.
func addImage(cmd *cobra.Command, lib api.Images, order api.ImageOrder, asJSON bool) error {
	show := newMeter(os.Stderr, "captured")
	d, err := lib.Add(cmd.Context(), order, show.update)
	show.end()
	if err != nil {
		return err
	}
	for _, w := range d.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", plain(w))
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), d)
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "image %s:%s %s: %s used of a disk of %s, %s to send\n", d.Manifest.Name, d.Manifest.Version,
		d.Digest.Short(), bytesText(d.Manifest.UsedLength()), bytesText(d.Manifest.DiskLength), bytesText(d.EncodedLength))
	if d.Added != nil {
		printAdded(w, d)
	}
	return nil
}

// printAdded says what making the image took.
func printAdded(w io.Writer, d *api.ImageDetail) {
	a := d.Added
	if !a.SourceRead {
		fmt.Fprintf(w, "source    not read: it has not changed since %s, whose content the image has\n", a.From)
	}
	ratio := "-"
	if a.DataLength > 0 {
		ratio = fmt.Sprintf("%.2f", float64(d.EncodedLength)/float64(a.DataLength))
	}
	fmt.Fprintf(w, "data      %s, and %s of zeros that are in use\nnew       %s stored, %d tiles; the rest was there\nratio     %s encoded to decoded\n",
		bytesText(a.DataLength), bytesText(a.ZeroLength), bytesText(a.NewLength), a.NewTiles, ratio)
	for _, x := range a.Dropped {
		fmt.Fprintf(w, "dropped   partition %d: %s, %s\n", x.Partition, plain(x.Name), bytesText(x.Length))
	}
	if left := slices.IndexFunc(d.Manifest.Partitions, func(p images.Partition) bool { return p.MapKind == images.MapNone }); left >= 0 {
		fmt.Fprintln(w, "left out  partitions that were not asked for; `seedbed image show` lists them with the map none")
	}
}
