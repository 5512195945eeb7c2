package client

import (
	"context"
	"io"
)

// DeploymentJournal writes what the jobs of a deployment did, as CSV, see package journal. After an error part of it is written.
func (c *Client) DeploymentJournal(ctx context.Context, id string, w io.Writer) error {
	return c.table(ctx, "/deployments/"+esc(id)+"/journal", w)
}

// MachineJournal writes what the jobs of a machine did, as CSV. One that was removed is named by its ID.
func (c *Client) MachineJournal(ctx context.Context, name string, w io.Writer) error {
	return c.table(ctx, "/machines/"+esc(name)+"/journal", w)
}

// table writes a table as the appliance sends it.
func (c *Client) table(ctx context.Context, path string, w io.Writer) error {
	resp, err := c.send(ctx, "GET", path, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}
