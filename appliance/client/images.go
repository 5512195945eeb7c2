package client

import (
	"context"
	"io"
	"strconv"

	"seedbed/appliance/api"
)

var _ api.Images = (*Client)(nil)

// List implements api.Images.
func (c *Client) List(ctx context.Context) ([]api.ImageListing, error) {
	return all[api.ImageListing](ctx, c, "/images", nil)
}

// Show implements api.Images.
func (c *Client) Show(ctx context.Context, ref string) (*api.ImageDetail, error) {
	return one[api.ImageDetail](ctx, c, "GET", "/images/"+esc(ref), nil)
}

// Add implements api.Images.
func (c *Client) Add(ctx context.Context, o api.ImageOrder, progress func(api.Progress)) (*api.ImageDetail, error) {
	return long[*api.ImageDetail](ctx, c, "/images", o, progress)
}

// Verify implements api.Upkeep.
func (c *Client) Verify(ctx context.Context, o api.VerifyOrder, progress func(api.Progress)) (*api.VerifyReport, error) {
	return long[*api.VerifyReport](ctx, c, "/verify", o, progress)
}

// Prune implements api.Upkeep.
func (c *Client) Prune(ctx context.Context, o api.PruneOrder, progress func(api.Progress)) (*api.PruneReport, error) {
	return long[*api.PruneReport](ctx, c, "/prune", api.PruneRequest{PruneOrder: o, Grace: api.Duration(o.Grace)}, progress)
}

// Remove implements api.Upkeep.
func (c *Client) Remove(ctx context.Context, ref string) error {
	return c.do(ctx, "DELETE", "/images/"+esc(ref), nil, nil)
}

// Diff implements api.Upkeep.
func (c *Client) Diff(ctx context.Context, from, to string) (*api.ImageDiff, error) {
	return one[api.ImageDiff](ctx, c, "GET", "/images/"+esc(from)+"/diff/"+esc(to), nil)
}

// Usage implements api.Upkeep.
func (c *Client) Usage(ctx context.Context, ref string) (*api.ImageUsage, error) {
	return one[api.ImageUsage](ctx, c, "GET", "/images/"+esc(ref)+"/usage", nil)
}

// OpenSwarm implements api.Opening.
func (c *Client) OpenSwarm(ctx context.Context, ref string, progress func(api.Progress)) (*api.OpenSwarm, error) {
	return long[*api.OpenSwarm](ctx, c, "/images/"+esc(ref)+"/open", nil, progress)
}

// CloseSwarm implements api.Opening.
func (c *Client) CloseSwarm(ctx context.Context, ref string) error {
	return c.do(ctx, "POST", "/images/"+esc(ref)+"/close", nil, nil)
}

// Torrent implements api.Opening.
func (c *Client) Torrent(ctx context.Context, ref string, o api.TorrentOrder) ([]byte, error) {
	q := query("announce", o.Announce)
	if o.Plain {
		q.Set("plain", "true")
	}
	resp, err := c.send(ctx, "GET", "/images/"+esc(ref)+"/torrent?"+q.Encode(), nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// CheckDisk implements api.Disks.
func (c *Client) CheckDisk(ctx context.Context, ref string, o api.DiskOrder, progress func(api.Progress)) (*api.DiskReport, error) {
	return long[*api.DiskReport](ctx, c, "/images/"+esc(ref)+"/check-disk", o, progress)
}

// Export implements api.Disks.
func (c *Client) Export(ctx context.Context, ref string, length int64, out api.DiskOutput) error {
	resp, err := c.send(ctx, "GET", "/images/"+esc(ref)+"/disk?length="+strconv.FormatInt(length, 10), nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return api.ReceiveDisk(resp.Body, out)
}
