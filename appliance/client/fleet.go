package client

import (
	"context"
	"io"
	"net/url"
	"strconv"
	"strings"

	"seedbed/appliance/alert"
	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// Machines lists the machines, in the order in which they were seen first.
func (c *Client) Machines(ctx context.Context, q api.MachineQuery) ([]api.Machine, error) {
	return all[api.Machine](ctx, c, "/machines", query("group", q.Group, "state", q.State, "admitted", q.Admitted, "text", q.Text))
}

// Machine returns the machine with this ID, name, MAC or serial number.
func (c *Client) Machine(ctx context.Context, name string) (*api.Machine, error) {
	return one[api.Machine](ctx, c, "GET", "/machines/"+esc(name), nil)
}

// MachineBoot says how a machine boots, where that stopped, and what to do.
func (c *Client) MachineBoot(ctx context.Context, name string) (*api.MachineBoot, error) {
	return one[api.MachineBoot](ctx, c, "GET", "/machines/"+esc(name)+"/boot", nil)
}

// EditMachine changes what people say of a machine, if its record has this version; 0 is any.
func (c *Client) EditMachine(ctx context.Context, name string, version int64, o fleet.MachineOrder) (*api.Machine, error) {
	return changed[api.Machine](ctx, c, "/machines/"+esc(name), version, o)
}

// Admit admits the machine with this code, ID, name or MAC.
func (c *Client) Admit(ctx context.Context, name string) (*api.Machine, error) {
	return one[api.Machine](ctx, c, "POST", "/machines/"+esc(name)+"/admit", nil)
}

// RemoveMachine forgets a machine.
func (c *Client) RemoveMachine(ctx context.Context, name string) error {
	return c.do(ctx, "DELETE", "/machines/"+esc(name), nil, nil)
}

// MergeMachines says that two machines are one; into stays.
func (c *Client) MergeMachines(ctx context.Context, from, into string) (*api.Machine, error) {
	return one[api.Machine](ctx, c, "POST", "/machines/"+esc(from)+"/merge", map[string]string{"into": into})
}

// Wake sends machines the packet that wakes them.
func (c *Client) Wake(ctx context.Context, n api.Names) (*fleet.Woken, error) {
	return one[fleet.Woken](ctx, c, "POST", "/wake", n)
}

// ExportMachines writes the table of machines as CSV.
func (c *Client) ExportMachines(ctx context.Context, w io.Writer) error {
	resp, err := c.send(ctx, "GET", "/machines.csv", nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// ImportMachines takes over a table of machines; dry only says what it would do.
func (c *Client) ImportMachines(ctx context.Context, r io.Reader, dry bool) (*fleet.Imported, error) {
	return one[fleet.Imported](ctx, c, "POST", "/machines.csv?dry="+strconv.FormatBool(dry), document{"text/csv", r})
}

// Work has machines verify, repair or wipe their disks, or tell what they are.
func (c *Client) Work(ctx context.Context, o fleet.WorkOrder) ([]api.Job, error) {
	list, err := one[[]api.Job](ctx, c, "POST", "/work", o)
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// PlanWork says what Work would do with an order, and changes nothing.
func (c *Client) PlanWork(ctx context.Context, o fleet.WorkOrder) (*fleet.WorkPlan, error) {
	return one[fleet.WorkPlan](ctx, c, "POST", "/work/plan", o)
}

// Groups lists the groups by name.
func (c *Client) Groups(ctx context.Context) ([]fleet.GroupView, error) {
	return all[fleet.GroupView](ctx, c, "/groups", nil)
}

// Group returns a group.
func (c *Client) Group(ctx context.Context, name string) (*fleet.GroupView, error) {
	return one[fleet.GroupView](ctx, c, "GET", "/groups/"+esc(name), nil)
}

// NewGroup makes a group.
func (c *Client) NewGroup(ctx context.Context, o fleet.GroupOrder) (*fleet.GroupView, error) {
	return one[fleet.GroupView](ctx, c, "POST", "/groups", o)
}

// EditGroup changes a group, if its record has this version; 0 is any.
func (c *Client) EditGroup(ctx context.Context, name string, version int64, o fleet.GroupOrder) (*fleet.GroupView, error) {
	return changed[fleet.GroupView](ctx, c, "/groups/"+esc(name), version, api.GroupPatch{GroupOrder: o, Name: o.Name})
}

// RemoveGroup removes a group; its machines stay.
func (c *Client) RemoveGroup(ctx context.Context, name string) error {
	return c.do(ctx, "DELETE", "/groups/"+esc(name), nil, nil)
}

// GroupMachines puts machines into a group, or takes them out, and returns how many changed.
func (c *Client) GroupMachines(ctx context.Context, name string, machines []string, in bool) (int, error) {
	verb := map[bool]string{true: "add", false: "remove"}[in]
	return c.count(ctx, "/groups/"+esc(name)+"/"+verb, map[string][]string{"machines": machines})
}

func (c *Client) count(ctx context.Context, path string, body any) (int, error) {
	var n api.Count
	err := c.do(ctx, "POST", path, body, &n)
	return n.Count, err
}

// Deployments lists the deployments, oldest first.
func (c *Client) Deployments(ctx context.Context) ([]api.Deployment, error) {
	return all[api.Deployment](ctx, c, "/deployments", nil)
}

// Deployment returns a deployment.
func (c *Client) Deployment(ctx context.Context, id string) (*api.Deployment, error) {
	return one[api.Deployment](ctx, c, "GET", "/deployments/"+esc(id), nil)
}

// Deploy makes a deployment.
func (c *Client) Deploy(ctx context.Context, o api.Order) (*api.Deployment, error) {
	return one[api.Deployment](ctx, c, "POST", "/deployments", o)
}

// Plan says what a deployment would do, and changes nothing.
func (c *Client) Plan(ctx context.Context, o api.Order) (*fleet.Plan, error) {
	return one[fleet.Plan](ctx, c, "POST", "/deployments/plan", o)
}

// OperateDeployment cancels, pauses or resumes all jobs of a deployment, and returns how many.
func (c *Client) OperateDeployment(ctx context.Context, id string, verb fleet.Verb) (int, error) {
	return c.count(ctx, "/deployments/"+esc(id)+"/"+esc(string(verb)), nil)
}

// CloseDeployment ends the growth of a deployment to all machines.
func (c *Client) CloseDeployment(ctx context.Context, id string) (*api.Deployment, error) {
	return one[api.Deployment](ctx, c, "POST", "/deployments/"+esc(id)+"/close", nil)
}

// RetryFailed has the failed jobs of a deployment done again, and returns how many.
func (c *Client) RetryFailed(ctx context.Context, id string) (int, error) {
	return c.count(ctx, "/deployments/"+esc(id)+"/retry-failed", nil)
}

// Rollback puts on the machines of a deployment what each held before.
func (c *Client) Rollback(ctx context.Context, id string) (*api.RolledBack, error) {
	return one[api.RolledBack](ctx, c, "POST", "/deployments/"+esc(id)+"/rollback", nil)
}

// Jobs lists the jobs that have not ended, and those of the last 30 days, oldest first. Where the query names more jobs than one
// request may, they are asked for in several, and each one's are together in the list.
func (c *Client) Jobs(ctx context.Context, q api.JobQuery) (list []api.Job, err error) {
	const jobsAtOnce = api.MaxJobIDs / jobIDLength
	ids := strings.Split(q.ID, ",")
	for len(ids) > jobsAtOnce {
		some := q
		some.ID = strings.Join(ids[:jobsAtOnce], ",")
		part, err := c.jobs(ctx, some)
		if err != nil {
			return nil, err
		}
		list, ids = append(list, part...), ids[jobsAtOnce:]
	}
	q.ID = strings.Join(ids, ",")
	part, err := c.jobs(ctx, q)
	if err != nil || list == nil {
		return part, err
	}
	return append(list, part...), nil
}

// jobIDLength is of an ID of a job and a comma, in bytes; IDs have 12, and there is some room.
const jobIDLength = 16

func (c *Client) jobs(ctx context.Context, q api.JobQuery) ([]api.Job, error) {
	return all[api.Job](ctx, c, "/jobs", query("id", q.ID, "machine", q.Machine, "deployment", q.Deployment, "state", string(q.State), "kind", string(q.Kind)))
}

// Job returns a job.
func (c *Client) Job(ctx context.Context, id string) (*api.Job, error) {
	return one[api.Job](ctx, c, "GET", "/jobs/"+esc(id), nil)
}

// History lists at most limit jobs that have ended, the latest first, behind a cursor; "" is the beginning.
func (c *Client) History(ctx context.Context, machine, deployment, cursor string, limit int) (*api.Page[api.Ended], error) {
	q := query("machine", machine, "deployment", deployment, "cursor", cursor, "limit", strconv.Itoa(limit))
	return one[api.Page[api.Ended]](ctx, c, "GET", "/history?"+q.Encode(), nil)
}

// Operate cancels, pauses, resumes or retries a job, as verb says. A retry is a new job, which is returned; of a wipe it needs Retry.
func (c *Client) Operate(ctx context.Context, id, verb string) (*api.Job, error) {
	return one[api.Job](ctx, c, "POST", "/jobs/"+esc(id)+"/"+esc(verb), nil)
}

// Retry has a job done again; confirm is "wipe" where it is a wipe, else empty. The new job is returned.
func (c *Client) Retry(ctx context.Context, id, confirm string) (*api.Job, error) {
	path := "/jobs/" + esc(id) + "/retry"
	if confirm != "" {
		path += "?" + query("confirm", confirm).Encode()
	}
	return one[api.Job](ctx, c, "POST", path, nil)
}

// Prioritise gives a job another priority.
func (c *Client) Prioritise(ctx context.Context, id string, priority int) (*api.Job, error) {
	return one[api.Job](ctx, c, "POST", "/jobs/"+esc(id)+"/priority", api.Priority{Priority: priority})
}

// Capture gives a machine the job to make an image of its disk.
func (c *Client) Capture(ctx context.Context, o fleet.CaptureOrder) (*api.Job, error) {
	return one[api.Job](ctx, c, "POST", "/captures", o)
}

// Events lists one page of events.
func (c *Client) Events(ctx context.Context, q api.EventQuery) ([]fleet.Event, error) {
	v := query("machine", q.Machine, "job", q.Job, "deployment", q.Deployment, "kind", q.Kind, "actor", q.Actor)
	for name, n := range map[string]int64{"after": q.After, "before": q.Before, "limit": int64(q.Limit)} {
		if n > 0 {
			v.Set(name, strconv.FormatInt(n, 10))
		}
	}
	p, err := one[api.Page[fleet.Event]](ctx, c, "GET", "/events?"+v.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return p.Items, nil
}

// Settings returns what is set for the whole site.
func (c *Client) Settings(ctx context.Context) (*fleet.Settings, error) {
	return one[fleet.Settings](ctx, c, "GET", "/settings", nil)
}

// EditSettings changes the settings, if they have this version; 0 is any.
func (c *Client) EditSettings(ctx context.Context, version int64, o fleet.SettingsOrder) (*fleet.Settings, error) {
	return changed[fleet.Settings](ctx, c, "/settings", version, o)
}

// Alerts lists the alerts, those that are open first.
func (c *Client) Alerts(ctx context.Context) ([]fleet.Alert, error) {
	return all[fleet.Alert](ctx, c, "/alerts", nil)
}

// Messages lists the messages about alerts, those that were not sent first.
func (c *Client) Messages(ctx context.Context) ([]fleet.Message, error) {
	return all[fleet.Message](ctx, c, "/messages", nil)
}

// TestMessages sends a test message on each channel that is set.
func (c *Client) TestMessages(ctx context.Context) ([]alert.Tested, error) {
	list, err := one[[]alert.Tested](ctx, c, "POST", "/messages/test", nil)
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// Appliances lists the appliances of the site.
func (c *Client) Appliances(ctx context.Context) ([]fleet.ApplianceView, error) {
	return all[fleet.ApplianceView](ctx, c, "/appliances", nil)
}

// NewToken makes a token of a guest.
func (c *Client) NewToken(ctx context.Context, o api.TokenOrder) (*api.NewToken, error) {
	return one[api.NewToken](ctx, c, "POST", "/tokens", o)
}

// Tokens lists the tokens of guests.
func (c *Client) Tokens(ctx context.Context) ([]fleet.Token, error) {
	return all[fleet.Token](ctx, c, "/tokens", nil)
}

// RevokeToken ends a token.
func (c *Client) RevokeToken(ctx context.Context, id string) (*fleet.Token, error) {
	return one[fleet.Token](ctx, c, "POST", "/tokens/"+esc(id)+"/revoke", nil)
}

// Join gets a certificate for a swarm without a token, on the appliance's own host.
func (c *Client) Join(ctx context.Context, j job.Join) (*job.Joined, error) {
	return one[job.Joined](ctx, c, "POST", "/guests/join", j)
}

// Nodes lists the seed nodes.
func (c *Client) Nodes(ctx context.Context) ([]fleet.NodeView, error) {
	return all[fleet.NodeView](ctx, c, "/nodes", nil)
}

// Warm has the seed nodes fetch an image, and returns how many there are.
func (c *Client) Warm(ctx context.Context, o api.WarmOrder) (int, error) {
	w, err := one[api.Warmed](ctx, c, "POST", "/nodes/warm", o)
	if err != nil {
		return 0, err
	}
	return w.Nodes, nil
}

// Drop has the seed nodes remove an image.
func (c *Client) Drop(ctx context.Context, o api.DropOrder) (*fleet.Dropped, error) {
	return one[fleet.Dropped](ctx, c, "POST", "/nodes/drop", o)
}

// Me says who asks.
func (c *Client) Me(ctx context.Context) (*api.Me, error) {
	return one[api.Me](ctx, c, "GET", "/me", nil)
}

// Users lists the users.
func (c *Client) Users(ctx context.Context) ([]fleet.UserView, error) {
	return all[fleet.UserView](ctx, c, "/users", nil)
}

// NewUser makes a user.
func (c *Client) NewUser(ctx context.Context, o fleet.UserOrder) (*fleet.UserView, error) {
	return one[fleet.UserView](ctx, c, "POST", "/users", o)
}

// EditUser changes a user, if its record has this version; 0 is any.
func (c *Client) EditUser(ctx context.Context, name string, version int64, o fleet.UserOrder) (*fleet.UserView, error) {
	return changed[fleet.UserView](ctx, c, "/users/"+esc(name), version, api.UserPatch{UserOrder: o, Name: o.Name})
}

// RemoveUser removes a user.
func (c *Client) RemoveUser(ctx context.Context, name string) error {
	return c.do(ctx, "DELETE", "/users/"+esc(name), nil, nil)
}

// Keys lists one's API tokens, or, for an administrator, all.
func (c *Client) Keys(ctx context.Context) ([]fleet.KeyView, error) {
	return all[fleet.KeyView](ctx, c, "/keys", nil)
}

// NewKey makes an API token.
func (c *Client) NewKey(ctx context.Context, o api.KeyOrder) (*api.NewKey, error) {
	return one[api.NewKey](ctx, c, "POST", "/keys", o)
}

// RevokeKey ends an API token.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.do(ctx, "DELETE", "/keys/"+esc(id), nil, nil)
}
