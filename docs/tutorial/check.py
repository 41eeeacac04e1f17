import jaxcost as jc

model = jc.load_model("config.json")
base = jc.load_system("b200-x8", efficiency="typical")
memory = jc.load_memory("hbm4", stacks=6)
compute = jc.replace(base.chip.compute, flops_8=3.9e15, flops_16=1.95e15)
link = jc.replace(base.fabric.scale_up, bandwidth=4e12)
design = jc.by_parts(
    jc.replace(
        base,
        chip=jc.replace(base.chip, memory=memory, compute=compute),
        fabric=jc.replace(base.fabric, scale_up=link),
    ),
    like=base,
)
traffic = jc.Traffic(prompt=4096, output=1024, batch=1102, prefix_hit=0.99)
plan = jc.Plan(tp=8, ep=8, weight_bits=8, expert_bits=8, kv_bits=8, activation_bits=8)
report = jc.evaluate(design, model, traffic, plan)
print(
    f"{report.tpot * 1e3:.2f} ms/token, {report.usd_per_mtok:.4f} USD/Mtok, {report.joules_per_token:.3f} J/token"
)
