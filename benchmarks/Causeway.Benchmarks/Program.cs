using Causeway.Benchmarks;

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

    case ["scaling", ..] when args.Length <= 3:
        string program = Environment.GetEnvironmentVariable("CAUSEWAY_BINARY") ?? Path.GetFullPath("artifacts/causeway");
        int most = args.Length > 2 ? int.Parse(args[2], System.Globalization.CultureInfo.InvariantCulture) : 1_000_000;
        using (var benchmark = new ScalingBenchmark(directory, program, rounds: 9))
        {
            benchmark.MeasureGuests();
            benchmark.MeasureInodes([.. new[] { 1, 100, 10_000, 1_000_000 }.Where(count => count <= most)]);
        }

        return 0;

    default:
        Console.Error.WriteLine("usage: dotnet run -c Release --project benchmarks/Causeway.Benchmarks -- dax [DIRECTORY [MEGABYTES]]");
        Console.Error.WriteLine("       dotnet run -c Release --project benchmarks/Causeway.Benchmarks -- coherent [DIRECTORY]");
        Console.Error.WriteLine("       dotnet run -c Release --project benchmarks/Causeway.Benchmarks -- scaling [DIRECTORY [MOST INODES]]");
        return 2;
}
