//! Who reaches a pod (nobody), and what it reaches: names, the API server, the model.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{LABEL, Manifests, Pod, list, named, selects};

/// How many addresses one block may have at most: a block of a provider, not a part of the world.
const MIN_PREFIX: (u8, u8) = (16, 32);

/// A pod is closed by a policy for both directions. By a plain one: a cluster without Cilium must hold it too.
pub fn selected(manifests: &Manifests) -> Vec<String> {
    let open = manifests.pods.iter().filter(|pod| {
        let mut policies = manifests.of_kind("NetworkPolicy").filter(|policy| is_for(policy, pod));
        !policies.any(|policy| policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"]))
    });
    open.map(|pod| format!("{} is selected by no policy for both Ingress and Egress", pod.owner))
        .collect()
}

/// Nobody is let in to a runner.
pub fn no_ingress(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in manifests.runners() {
        for policy in policies(manifests, pod) {
            if !list(&policy["spec"]["ingress"]).is_empty() {
                wrong.push(format!("{} lets somebody in to {}", named(policy), pod.owner));
            }
        }
    }
    wrong
}

/// Each way out of a runner says where to, and on which port.
pub fn egress(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in manifests.runners() {
        for policy in policies(manifests, pod) {
            for rule in list(&policy["spec"]["egress"]) {
                let problem = if policy["kind"] == "NetworkPolicy" {
                    plain(rule)
                } else {
                    cilium(rule)
                };
                wrong.extend(
                    problem
                        .err()
                        .map(|problem| format!("{}: {problem}: {rule}", named(policy))),
                );
            }
            if policy["kind"] != "NetworkPolicy" && !only(&policy["spec"], &["endpointSelector", "egress"]) {
                wrong.push(format!("{} has more than these tests understand", named(policy)));
            }
        }
    }
    wrong
}

/// The three ways out are there, and no other: where a component takes one away, it brings another. Where names decide,
/// they are those of the settings.
pub fn ways(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in manifests.runners() {
        let of_pod = policies(manifests, pod);
        let rules: Vec<&Value> = of_pod
            .iter()
            .flat_map(|policy| list(&policy["spec"]["egress"]))
            .collect();
        let mut count = [("names", 0), ("the API server", 0), ("the model", 0)];
        for rule in &rules {
            count[way(rule)].1 += 1;
        }
        for (what, number) in count {
            if number != 1 {
                wrong.push(format!("{} has {number} ways to {what}", pod.owner));
            }
        }
        let environment = manifests.environment(pod);
        let host = |variable: &str| environment.get(variable).map(|address| host(address).to_owned());
        let named = |list_of: &str| -> Vec<&Value> { rules.iter().flat_map(|rule| names(rule, list_of)).collect() };
        let (answered, reached) = (named("dns"), named("toFQDNs"));
        if reached.is_empty() {
            continue;
        }
        let model = host("ANTHROPIC_BASE_URL");
        let wanted = [model.clone(), host("CALLBACK_URL").or_else(|| host("REGISTER_URL"))];
        for host in wanted.iter().flatten() {
            if !answered.iter().any(|name| *name == host) {
                wrong.push(format!(
                    "{}: the name {host} of its settings is not answered",
                    pod.owner
                ));
            }
        }
        if !model.iter().all(|host| reached.iter().any(|name| *name == host)) {
            wrong.push(format!(
                "{}: the host of ANTHROPIC_BASE_URL is not the one that can be reached",
                pod.owner
            ));
        }
    }
    wrong
}

/// The policies of both kinds that select a pod.
fn policies<'a>(manifests: &Manifests<'a>, pod: &Pod) -> Vec<&'a Value> {
    let ours = ["NetworkPolicy", "CiliumNetworkPolicy"];
    let all = manifests
        .objects
        .iter()
        .filter(|object| ours.iter().any(|kind| object["kind"] == *kind));
    all.filter(|policy| is_for(policy, pod)).collect()
}

fn is_for(policy: &Value, pod: &Pod) -> bool {
    let selector = match policy["spec"]["podSelector"] {
        Value::Null => &policy["spec"]["endpointSelector"],
        _ => &policy["spec"]["podSelector"],
    };
    policy["metadata"]["namespace"] == pod.namespace && selects(selector, pod.labels)
}

/// The places of the ways in [`ways`].
const NAMES: usize = 0;
const API: usize = 1;
const MODEL: usize = 2;

/// Which of the three ways a rule is, by its port and by whom it names.
fn way(rule: &Value) -> usize {
    let port = rule
        .pointer("/ports/0/port")
        .or_else(|| rule.pointer("/toPorts/0/ports/0/port"));
    let api = rule
        .pointer("/to/0/podSelector/matchLabels")
        .is_some_and(|labels| labels[LABEL.0] == "plue-api");
    match port {
        Some(port) if *port == 53 || *port == "53" => NAMES,
        _ if api => API,
        _ => MODEL,
    }
}

/// A rule of a policy of Kubernetes. What it leaves out, it allows to all.
fn plain(rule: &Value) -> Result<(), &'static str> {
    require(only(rule, &["to", "ports"]), "has more than these tests understand")?;
    require(!list(&rule["to"]).is_empty(), "goes anywhere")?;
    let ports = list(&rule["ports"]);
    require(
        !ports.is_empty() && ports.iter().all(|port| port["port"].is_u64()),
        "opens all ports",
    )?;
    require(
        ports.iter().all(|port| port["endPort"].is_null()),
        "opens a range of ports",
    )?;
    let peers = list(&rule["to"]);
    for peer in peers {
        match peer["ipBlock"]["cidr"].as_str() {
            Some(block) => require(
                only(peer, &["ipBlock"]) && is_narrow(block),
                "has a block of addresses that is too wide, or none",
            )?,
            None => {
                require(has_labels(&peer["podSelector"]), "names no pods")?;
                let namespace = &peer["namespaceSelector"];
                require(
                    namespace.is_null() || has_labels(namespace),
                    "names pods of all namespaces",
                )?;
            }
        }
    }
    // A rule is one way: what is beside it in the rule is another.
    match way(rule) {
        NAMES => require(
            ports.iter().all(|port| port["port"] == 53) && peers.iter().all(answers_names),
            "is for names, and opens more",
        ),
        API => require(
            ports.len() == 1 && peers.len() == 1 && peers[0]["namespaceSelector"].is_null(),
            "is for the API server, and opens more",
        ),
        _ => require(ports.len() == 1, "is for the model, and opens several ports"),
    }
}

/// Whether a peer is the cluster's DNS: its pods, or the one address of a cache on the node.
fn answers_names(peer: &Value) -> bool {
    let system = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
    match peer["ipBlock"]["cidr"].as_str() {
        Some(block) => block.ends_with("/32") || block.ends_with("/128"),
        None => peer["namespaceSelector"] == system,
    }
}

/// A rule of Cilium.
fn cilium(rule: &Value) -> Result<(), &'static str> {
    require(
        only(rule, &["toEndpoints", "toFQDNs", "toPorts"]),
        "has more than these tests understand",
    )?;
    let (pods, hosts) = (list(&rule["toEndpoints"]), list(&rule["toFQDNs"]));
    require(pods.is_empty() != hosts.is_empty(), "goes anywhere")?;
    require(pods.iter().all(has_labels), "names no pods")?;
    let named = |name: &Value| name["matchName"].is_string() && only(name, &["matchName"]);
    require(hosts.iter().all(named), "has a pattern in place of a name")?;
    let to_ports = list(&rule["toPorts"]);
    require(
        !to_ports.is_empty() && to_ports.iter().all(|one| !list(&one["ports"]).is_empty()),
        "opens all ports",
    )?;
    let asks = to_ports
        .iter()
        .filter(|one| list(&one["ports"]).iter().any(|port| port["port"] == "53"));
    let mut answers = asks.map(|one| list(&one["rules"]["dns"]));
    require(
        answers.all(|names| !names.is_empty() && names.iter().all(named)),
        "lets any name be asked for",
    )
}

/// The names in a rule of Cilium: those that can be asked for, or those that can be reached.
fn names<'a>(rule: &'a Value, what: &str) -> Vec<&'a Value> {
    let entries = match what {
        "dns" => list(&rule["toPorts"])
            .iter()
            .flat_map(|one| list(&one["rules"]["dns"]))
            .collect::<Vec<_>>(),
        _ => list(&rule[what]).iter().collect(),
    };
    entries.into_iter().map(|entry| &entry["matchName"]).collect()
}

/// The host of an address.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or_default()
}

/// Whether a block is a network of somebody's, and not a large part of all addresses.
fn is_narrow(block: &str) -> bool {
    let Some((address, prefix)) = block.split_once('/') else {
        return false;
    };
    match (address.parse(), prefix.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(prefix)) => prefix >= MIN_PREFIX.0,
        (Ok(IpAddr::V6(_)), Ok(prefix)) => prefix >= MIN_PREFIX.1,
        _ => false,
    }
}

fn has_labels(selector: &Value) -> bool {
    let labels = selector["matchLabels"].as_object();
    only(selector, &["matchLabels"]) && labels.is_some_and(|labels| !labels.is_empty())
}

fn only(value: &Value, keys: &[&str]) -> bool {
    value
        .as_object()
        .is_some_and(|fields| fields.keys().all(|key| keys.contains(&key.as_str())))
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
