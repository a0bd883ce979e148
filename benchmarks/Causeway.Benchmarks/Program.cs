using Causeway.Benchmarks;
using Causeway.Cli.Bench;
using Causeway.EndToEnd;

string directory = args.Length > 1 ? args[1] : Path.GetTempPath();
switch (args)
{
    case ["dax", ..] when args.Length <= 3:
        int megabytes = args.Length > 2 ? int.Parse(args[2], System.Globalization.CultureInfo.InvariantCulture) : 128;
        await using (DaxBenchmark benchmark = DaxBenchmark.Start(directory, megabytes))
        {
            await benchmark.RunAsync();
        }

        return 0;

    case ["coherent", ..] when args.Length <= 2:
        await using (CoherentBenchmark benchmark = CoherentBenchmark.Start(directory))
        {
            await benchmark.RunAsync();
        }

        return 0;

    case ["rings", ..] when args.Length <= 3:
        int turns = args.Length > 1 ? int.Parse(args[1], System.Globalization.CultureInfo.InvariantCulture) : 21;
        using (var benchmark = new RingBenchmark(turns, args.Length > 2 ? args[2] : ""))
        {
            benchmark.Run();
        }

        return 0;

    case ["scaling", ..] when args.Length <= 4:
        int most = args.Length > 2 ? int.Parse(args[2], System.Globalization.CultureInfo.InvariantCulture) : 1_000_000;
        using (var benchmark = new ScalingBenchmark(directory, Repository.Binary, args.Length > 3 ? args[3] : "", rounds: 9))
        {
            benchmark.MeasureGuests();
            benchmark.MeasureInodes([.. new[] { 1, 100, 10_000, 1_000_000 }.Where(count => count <= most)]);
        }

        return 0;

    case ["guest", _, string virtiofsd, string further, string rounds, string json, .. string[] only]:
        string options = $"--socket-path {{socket}} --shared-dir {{dir}} --xattr {further}";
        await using (GuestBenchmark benchmark = await GuestBenchmark.StartAsync(
            directory,
            [DaemonLine.Parse($"causeway='{Repository.Binary}' serve {options}"), DaemonLine.Parse($"virtiofsd='{virtiofsd}' {options}")]))
        {
            await benchmark.RunAsync(int.Parse(rounds, System.Globalization.CultureInfo.InvariantCulture), only);
            benchmark.Print();
            benchmark.WriteJson(json);
        }

        return 0;

    case ["flames", string title]:
        FlameGraph.Read(Console.In).Write(Console.Out, title);
        return 0;

    default:
        Console.Error.WriteLine("usage: dotnet run -c Release --project benchmarks/Causeway.Benchmarks -- dax [DIRECTORY [MEGABYTES]]");
        Console.Error.WriteLine("       dotnet run -c Release --project benchmarks/Causeway.Benchmarks -- coherent [DIRECTORY]");
        Console.Error.WriteLine("       dotnet run -c Release --project benchmarks/Causeway.Benchmarks -- scaling [DIRECTORY [MOST INODES [OPTIONS]]]");
        Console.Error.WriteLine("       dotnet run -c Release --project benchmarks/Causeway.Benchmarks -- rings [ROUNDS [ONLY]]");
        Console.Error.WriteLine("       ... -- flames TITLE, from 'perf script' to SVG; see bench/profile");
        Console.Error.WriteLine("       bench/guest, for programs in a guest");
        return 2;
}
