import jaxcost as jc

model = jc.load_model("config.json")
total, active = jc.parameter_count(model)
cache = jc.kv_bytes_per_token(model) / 1024
print(f"{total / 1e9:.0f}B parameters, {active / 1e9:.0f}B active, {cache:.0f} KiB of cache a token")
