package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/swarm"
)

// seedOrder is what `seedbed seed` may be told.
type seedOrder struct {
	images  []string
	preload float64 // 0 to 1, of all seed nodes together
	prefix  bool
	device  string
	space   int64 // bytes on the disk for all images; 0 leaves a share of the file system free
	network peerFlags
}

func seedCommand(o *options) *cobra.Command {
	order := seedOrder{}
	var tokenFile, preload, room string
	var stripe bool
	cmd := &cobra.Command{Use: "seed [IMAGE...]", Short: "Be a seed node: fetch images, and serve them to machines", Args: cobra.ArbitraryArgs,
		Long: `Seed takes part in the swarms of the images that are named, or of those that the site deploys, until it is stopped. Before
machines start it fetches its share of the pieces, and keeps them in the data directory; it serves what it holds, also while
the appliance is away. With --preload 20% the seed nodes hold the first fifth of an image together, each its stripe, or with
--prefix each all of it. "seedbed seed warm" at the appliance has all seed nodes fetch an image.

What it keeps has a limit: --space, or else a tenth of the file system stays free, 20 GiB at most. Where more is needed it removes the
images that were not used for longest, of those that no running deployment uses and that it was not started with; where that is not
enough it holds what fits, and says so in "seedbed seed ls". "seedbed seed drop" at the appliance removes an image everywhere.

With --device it serves an image from a disk, or a file, that holds it: what the disk holds is compared with the image first,
and again whenever it is sent; nothing is fetched.

On the appliance's own host nothing else is needed. Elsewhere a token is: made with "seedbed token new --for seed" at the
appliance, and given with --token-file or in ` + tokenVariable + ` at the first start.`}
	f := cmd.Flags()
	f.StringVar(&tokenFile, "token-file", "", "`FILE` with the token, - for standard input (default: the environment, "+tokenVariable+")")
	f.StringVar(&preload, "preload", "all", "`SHARE` of each image to fetch: 20%, all or none")
	f.BoolVar(&stripe, "stripe", false, "share the pieces with the other seed nodes (default)")
	f.BoolVar(&order.prefix, "prefix", false, "hold the pieces of the share all, whatever other seed nodes hold")
	f.StringVar(&order.device, "device", "", "serve the image from this `DISK`, or file, that holds it")
	f.StringVar(&room, "space", "", "keep at most so much on the disk, `SIZE` of all images together: 200GiB (default: leave a tenth of the file system free, 20 GiB at most)")
	order.network.add(f, ":6881")
	order.network.addInterfaces(f)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		order.images = args
		if err := order.network.check(); err != nil {
			return err
		}
		if order.preload, err = parseShare(preload); err != nil {
			return usageError{fmt.Errorf("--preload: %w", err)}
		}
		if room != "" {
			if order.space, err = parseSpace(room); err != nil {
				return usageError{fmt.Errorf("--space: %w", err)}
			}
		}
		switch {
		case stripe && order.prefix:
			return usageError{errors.New("--stripe or --prefix, not both")}
		case order.device != "" && len(args) != 1:
			return usageError{errors.New("--device holds one image; say which")}
		}
		ticket, err := readTicket(tokenFile, cmd.InOrStdin())
		if err != nil {
			return err
		}
		log, err := o.log()
		if err != nil {
			return err
		}
		return o.runSeedNode(cmd.Context(), &order, ticket, log)
	}
	cmd.AddCommand(seedWarm(o), seedLs(o), seedDrop(o))
	return cmd
}

// parseShare reads "20%", "all" or "none".
func parseShare(s string) (float64, error) {
	switch s {
	case "all":
		return 1, nil
	case "none":
		return 0, nil
	}
	percent, ok := strings.CutSuffix(s, "%")
	n, err := strconv.ParseFloat(percent, 64)
	if !ok || err != nil || !(n >= 0 && n <= 100) {
		return 0, fmt.Errorf("%q is no share of an image; say 20%%, all or none", s)
	}
	return n / 100, nil
}

// runSeedNode serves until ctx is done.
func (o *options) runSeedNode(ctx context.Context, order *seedOrder, ticket *job.Ticket, log *slog.Logger) error {
	dir := filepath.Join(o.data, "seed")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of the seed node: %w", err)
	}
	unlock, err := lockSeedNode(dir)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := o.newGuest(ctx, job.RoleSeed, ticket, filepath.Join(dir, "pass"), log)
	if err != nil {
		return err
	}
	defer g.close()
	g.limits = order.network.share() // of all images together
	transport := order.network.transport
	room, err := newSpace(dir, order.space)
	if err != nil {
		return fmt.Errorf("look how much the seed node keeps in %s: %w", dir, err)
	}
	g.use(transport)
	muxes, err := listenOn(transport, order.network.listen, log)
	if err != nil {
		return err
	}
	n := &seedNode{order: order, g: g, dir: dir, log: log, muxes: muxes, transport: transport, failed: make(chan error, 1),
		space: room, images: map[images.Digest]*nodeImage{}, evicted: map[images.Digest]time.Time{}}
	return n.run(ctx)
}

// listenOn opens a port for all swarms, on each interface where some are named.
func listenOn(t swarm.Transport, address string, log *slog.Logger) (muxes []*swarm.Mux, err error) {
	devices := t.Interfaces
	if len(devices) == 0 {
		devices = []string{""}
	}
	for _, device := range devices {
		l, err := t.ListenOn(device, address)
		if err != nil {
			for _, m := range muxes {
				m.Close()
			}
			where := address
			if device != "" {
				where = address + " of interface " + device
			}
			return nil, fmt.Errorf("listen for the swarm on %s: %w", where, err)
		}
		muxes = append(muxes, swarm.NewMux(l, log))
	}
	return muxes, nil
}

// lockSeedNode keeps a second seed node from a directory.
func lockSeedNode(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, false); err != nil {
		f.Close()
		return nil, fmt.Errorf("another seed node runs in %s; give this one a directory of its own with --data", dir)
	}
	return func() { f.Close() }, nil
}

func seedWarm(o *options) *cobra.Command {
	var preload string
	cmd := &cobra.Command{Use: "warm IMAGE", Short: "Have all seed nodes fetch an image now", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, imageNames)}
	cmd.Flags().StringVar(&preload, "preload", "all", "`SHARE` that they hold together: 20%, all")
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		share, err := parseShare(preload)
		if err != nil {
			return usageError{fmt.Errorf("--preload: %w", err)}
		}
		n, err := c.Warm(cmd.Context(), api.WarmOrder{Image: args[0], Share: share})
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, api.Warmed{Nodes: n}, "%d seed nodes fetch %s of image %s; follow with `seedbed seed ls`\n", n, preload, args[0])
	})
	return cmd
}

func seedDrop(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "drop IMAGE", Short: "Have all seed nodes remove what they hold of an image", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, imageNames),
		Long: `Drop frees the room that an image takes on seed nodes. It is refused while a deployment uses the image. A node that was started with
the image, or serves it from a disk, keeps it.`}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		d, err := c.Drop(cmd.Context(), api.DropOrder{Image: args[0]})
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), d)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d seed nodes remove image %s; follow with `seedbed seed ls`\n", d.Nodes, d.ImageName)
		if d.Pinned > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "%d keep it, since they were started with it: start them without\n", d.Pinned)
		}
		return nil
	})
	return cmd
}

func seedLs(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "ls", Short: "List the seed nodes with what they hold", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Nodes(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "NODE", "ADDRESS", "STRIPE", "SPACE", "IMAGE", "HOLDS", "OF", "SIZE", "LAST USE", "KEPT FOR", "RECEIVES", "SENDS", "SENT", "PEERS", "STATE")
		for _, n := range list {
			node := []any{n.Name, n.Addr, fmt.Sprintf("%d of %d", n.Rank+1, n.Count), bytesText(n.Used) + " of " + bytesText(n.Space)}
			if len(n.Images)+len(n.Kept) == 0 {
				t.row(append(node, "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "waits for a deployment")...)
			}
			for _, i := range n.Images {
				t.row(append(node, i.ImageName, bytesText(i.Held), bytesText(i.Total), bytesText(i.Size), timeText(i.LastUse), keptFor(i),
					rateText64(i.ReceivedRate), rateText64(i.SentRate), bytesText(i.Sent), i.Peers, nodeState(i))...)
			}
			for _, k := range n.Kept {
				t.row(append(node, k.ImageName, "-", "-", bytesText(k.Size), timeText(k.LastUse), "-", "-", "-", "-", "-", "on the disk, not served")...)
			}
		}
		return t.flush()
	})
	return cmd
}

func rateText64(r float64) string { return bytesText(int64(math.Round(r))) + "/s" }

// keptFor says why an image is not evicted; "-" is no reason.
func keptFor(i job.NodeImage) string {
	switch {
	case i.InUse:
		return "a deployment"
	case i.Pinned:
		return "pinned"
	}
	return "-"
}

func nodeState(i job.NodeImage) string {
	switch {
	case i.Problem != "":
		return i.Problem
	case i.FromDisk:
		return "serves a disk"
	case i.Total == 0:
		return "reads the description"
	case i.Held < i.Wanted:
		return fmt.Sprintf("fetches, %d %%", 100*i.Held/max(i.Wanted, 1))
	}
	return "serves"
}

// fatal reports whether the appliance says no, so that asking again is of no use.
func fatal(err error) bool {
	_, refused := errors.AsType[*fleet.Refusal](err)
	return refused
}

// Waits after a failure: until the appliance is asked again, and until an image is tried again.
const (
	nodeRetry  = time.Second
	imageRetry = 10 * time.Second
)
